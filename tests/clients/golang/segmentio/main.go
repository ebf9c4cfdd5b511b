// segmentio/kafka-go: topics, records of all codecs, a group, commits, deletion.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
)

const count = 1000

func check(err error) {
	if err != nil {
		fmt.Println("FAILED", err)
		os.Exit(1)
	}
}

func expect(is bool, what string, values ...any) {
	if !is {
		check(fmt.Errorf(what, values...))
	}
}

func main() {
	brokers, topic := strings.Split(os.Args[1], ","), os.Args[2]
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	connection, err := kafka.Dial("tcp", brokers[0])
	check(err)
	controller, err := connection.Controller()
	check(err)
	found, err := connection.Brokers()
	check(err)
	expect(len(found) == 3, "%d brokers", len(found))
	check(connection.Close())
	connection, err = kafka.Dial("tcp", net.JoinHostPort(controller.Host, fmt.Sprint(controller.Port)))
	check(err)
	wantedTopic := kafka.TopicConfig{Topic: topic, NumPartitions: 3, ReplicationFactor: 3,
		ConfigEntries: []kafka.ConfigEntry{{ConfigName: "retention.ms", ConfigValue: "600000"}}}
	check(connection.CreateTopics(wantedTopic))
	client := &kafka.Client{Addr: kafka.TCP(brokers...), Timeout: 30 * time.Second}
	again, err := client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{wantedTopic}})
	check(err)
	expect(errors.Is(again.Errors[topic], kafka.TopicAlreadyExists), "created twice: %v", again.Errors[topic])
	time.Sleep(time.Second) // the library asks each node as it likes, and does not retry an unknown topic

	wanted := map[string]string{}
	codecs := map[string]kafka.Compression{"none": 0, "gzip": kafka.Gzip, "snappy": kafka.Snappy, "lz4": kafka.Lz4, "zstd": kafka.Zstd}
	for name, codec := range codecs {
		writer := &kafka.Writer{Addr: kafka.TCP(brokers...), Topic: topic, Balancer: &kafka.Hash{}, Compression: codec,
			RequiredAcks: kafka.RequireAll, BatchTimeout: 5 * time.Millisecond}
		var messages []kafka.Message
		for i := 0; i < count; i++ {
			key, value := fmt.Sprintf("%s-%d", name, i), fmt.Sprintf("value %d äöü", i)
			wanted[key] = value
			messages = append(messages, kafka.Message{Key: []byte(key), Value: []byte(value), Headers: []kafka.Header{{Key: "codec", Value: []byte(name)}}})
		}
		check(writer.WriteMessages(ctx, messages...))
		check(writer.Close())
	}
	offsets, err := client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{
		topic: {kafka.LastOffsetOf(0), kafka.LastOffsetOf(1), kafka.LastOffsetOf(2)}}})
	check(err)
	total := int64(0)
	for _, partition := range offsets.Topics[topic] {
		check(partition.Error)
		total += partition.LastOffset
	}
	expect(total == int64(len(wanted)), "%d records in the log, %d produced", total, len(wanted))

	group := topic + "-group"
	reader := kafka.NewReader(kafka.ReaderConfig{Brokers: brokers, GroupID: group, Topic: topic, StartOffset: kafka.FirstOffset, MaxWait: 500 * time.Millisecond})
	read := map[string]string{}
	for len(read) < len(wanted) {
		message, err := reader.FetchMessage(ctx)
		check(err)
		expect(len(message.Headers) == 1 && message.Headers[0].Key == "codec", "headers of %s", message.Key)
		_, again := read[string(message.Key)]
		expect(!again, "%s is there twice", message.Key)
		read[string(message.Key)] = string(message.Value)
		if len(read)%500 == 0 || len(read) == len(wanted) {
			check(reader.CommitMessages(ctx, message))
		}
	}
	check(reader.Close())
	for key, value := range wanted {
		expect(read[key] == value, "%s is %q", key, read[key])
	}
	committed, err := client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: group, Topics: map[string][]int{topic: {0, 1, 2}}})
	check(err)
	check(committed.Error)
	expect(len(committed.Topics[topic]) == 3, "%v", committed.Topics)
	check(connection.DeleteTopics(topic))
	fmt.Println("ok", len(read), "records")
}
