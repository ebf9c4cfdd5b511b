// segmentio/kafka-go: topics, records of all codecs, a group, commits, deletion.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"kraft.example/clients/script"

	"github.com/segmentio/kafka-go"
)

func main() {
	brokers, topic := script.Arguments()
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	connection, err := kafka.Dial("tcp", brokers[0])
	script.Check(err)
	controller, err := connection.Controller()
	script.Check(err)
	found, err := connection.Brokers()
	script.Check(err)
	script.Expect(len(found) == 3, "%d brokers", len(found))
	script.Check(connection.Close())
	connection, err = kafka.Dial("tcp", net.JoinHostPort(controller.Host, fmt.Sprint(controller.Port)))
	script.Check(err)
	wantedTopic := kafka.TopicConfig{Topic: topic, NumPartitions: 3, ReplicationFactor: 3,
		ConfigEntries: []kafka.ConfigEntry{{ConfigName: "retention.ms", ConfigValue: "600000"}}}
	script.Check(connection.CreateTopics(wantedTopic))
	client := &kafka.Client{Addr: kafka.TCP(brokers...), Timeout: 30 * time.Second}
	again, err := client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{wantedTopic}})
	script.Check(err)
	script.Expect(errors.Is(again.Errors[topic], kafka.TopicAlreadyExists), "created twice: %v", again.Errors[topic])
	time.Sleep(time.Second) // the library asks each node as it likes, and does not retry an unknown topic

	records := script.NewRecords()
	codecs := map[string]kafka.Compression{"none": 0, "gzip": kafka.Gzip, "snappy": kafka.Snappy, "lz4": kafka.Lz4, "zstd": kafka.Zstd}
	for name, codec := range codecs {
		writer := &kafka.Writer{Addr: kafka.TCP(brokers...), Topic: topic, Balancer: &kafka.Hash{}, Compression: codec,
			RequiredAcks: kafka.RequireAll, BatchTimeout: 5 * time.Millisecond}
		var messages []kafka.Message
		for i := 0; i < script.Count; i++ {
			key, value := records.New(name, i)
			messages = append(messages, kafka.Message{Key: []byte(key), Value: []byte(value), Headers: []kafka.Header{{Key: "codec", Value: []byte(name)}}})
		}
		script.Check(writer.WriteMessages(ctx, messages...))
		script.Check(writer.Close())
	}
	offsets, err := client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{
		topic: {kafka.LastOffsetOf(0), kafka.LastOffsetOf(1), kafka.LastOffsetOf(2)}}})
	script.Check(err)
	total := int64(0)
	for _, partition := range offsets.Topics[topic] {
		script.Check(partition.Error)
		total += partition.LastOffset
	}
	script.Expect(total == int64(records.Wanted()), "%d records in the log, %d produced", total, records.Wanted())

	group := topic + "-group"
	reader := kafka.NewReader(kafka.ReaderConfig{Brokers: brokers, GroupID: group, Topic: topic, StartOffset: kafka.FirstOffset, MaxWait: 500 * time.Millisecond})
	for records.WereRead() < records.Wanted() {
		message, err := reader.FetchMessage(ctx)
		script.Check(err)
		var headers []string
		for _, header := range message.Headers {
			headers = append(headers, header.Key)
		}
		read := records.Read(message.Key, message.Value, headers...)
		if read%500 == 0 || read == records.Wanted() {
			script.Check(reader.CommitMessages(ctx, message))
		}
	}
	script.Check(reader.Close())
	records.Compare()
	committed, err := client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: group, Topics: map[string][]int{topic: {0, 1, 2}}})
	script.Check(err)
	script.Check(committed.Error)
	script.Expect(len(committed.Topics[topic]) == 3, "%v", committed.Topics)
	script.Check(connection.DeleteTopics(topic))
	fmt.Println("ok", records.WereRead(), "records")
}
