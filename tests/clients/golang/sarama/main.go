// sarama: topics, idempotent records of all codecs, a group, commits, deletion.
package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"kraft.example/clients/script"

	"github.com/IBM/sarama"
)

type reader struct {
	records *script.Records
	done    chan struct{}
}

func (r *reader) Setup(sarama.ConsumerGroupSession) error   { return nil }
func (r *reader) Cleanup(sarama.ConsumerGroupSession) error { return nil }
func (r *reader) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case message := <-claim.Messages():
			if message == nil {
				return nil
			}
			session.MarkMessage(message, "read")
			var headers []string
			for _, header := range message.Headers {
				headers = append(headers, string(header.Key))
			}
			if r.records.Read(message.Key, message.Value, headers...) == r.records.Wanted() {
				close(r.done)
			}
		case <-session.Context().Done():
			return nil
		}
	}
}

func settings(version sarama.KafkaVersion) *sarama.Config {
	config := sarama.NewConfig()
	config.Version = version
	config.Producer.Idempotent = true
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Return.Successes = true
	config.Net.MaxOpenRequests = 1
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	return config
}

func run(brokers []string, topic string, version sarama.KafkaVersion) int {
	admin, err := sarama.NewClusterAdmin(brokers, settings(version))
	script.Check(err)
	defer admin.Close()
	retention := "600000"
	detail := &sarama.TopicDetail{NumPartitions: 3, ReplicationFactor: 3, ConfigEntries: map[string]*string{"retention.ms": &retention}}
	script.Check(admin.CreateTopic(topic, detail, false))
	err = admin.CreateTopic(topic, detail, false)
	script.Expect(errors.Is(err, sarama.ErrTopicAlreadyExists), "created twice: %v", err)
	entries, err := admin.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: topic, ConfigNames: []string{"retention.ms"}})
	script.Check(err)
	script.Expect(len(entries) == 1 && entries[0].Value == retention, "configs %v", entries)
	script.Check(admin.CreatePartitions(topic, 4, nil, false))
	cluster, _, err := admin.DescribeCluster()
	script.Check(err)
	script.Expect(len(cluster) == 3, "%d brokers", len(cluster))
	_, err = admin.DescribeLogDirs([]int32{1, 2, 3})
	script.Check(err)

	records := script.NewRecords()
	for _, codec := range []sarama.CompressionCodec{sarama.CompressionNone, sarama.CompressionGZIP, sarama.CompressionSnappy, sarama.CompressionLZ4, sarama.CompressionZSTD} {
		config := settings(version)
		config.Producer.Compression = codec
		producer, err := sarama.NewSyncProducer(brokers, config)
		script.Check(err)
		var messages []*sarama.ProducerMessage
		for i := 0; i < script.Count; i++ {
			key, value := records.New(codec.String(), i)
			messages = append(messages, &sarama.ProducerMessage{Topic: topic, Key: sarama.StringEncoder(key), Value: sarama.StringEncoder(value),
				Headers: []sarama.RecordHeader{{Key: []byte("codec"), Value: []byte(codec.String())}}})
		}
		script.Check(producer.SendMessages(messages))
		script.Check(producer.Close())
	}

	client, err := sarama.NewClient(brokers, settings(version))
	script.Check(err)
	defer client.Close()
	total := int64(0)
	for partition := int32(0); partition < 4; partition++ {
		offset, err := client.GetOffset(topic, partition, sarama.OffsetNewest)
		script.Check(err)
		total += offset
	}
	script.Expect(total == int64(records.Wanted()), "%d records in the log, %d produced", total, records.Wanted())

	group := topic + "-group"
	consumer, err := sarama.NewConsumerGroup(brokers, group, settings(version))
	script.Check(err)
	ctx, cancel := context.WithCancel(context.Background())
	r := &reader{records: records, done: make(chan struct{})}
	ended := make(chan error, 1)
	go func() { ended <- consumer.Consume(ctx, []string{topic}, r) }()
	select {
	case <-r.done:
	case err := <-ended:
		script.Check(fmt.Errorf("the group ended early: %w", err))
	case <-time.After(60 * time.Second):
		script.Check(fmt.Errorf("%d of %d read in 60 s", records.WereRead(), records.Wanted()))
	}
	cancel()
	<-ended
	script.Check(consumer.Close())
	records.Compare()
	offsets, err := admin.ListConsumerGroupOffsets(group, map[string][]int32{topic: {0, 1, 2, 3}})
	script.Check(err)
	committed := int64(0)
	for _, block := range offsets.Blocks[topic] {
		committed += max(block.Offset, 0)
	}
	script.Expect(committed == int64(records.Wanted()), "%d committed of %d", committed, records.Wanted())
	script.Check(admin.DeleteConsumerGroup(group))
	script.Check(admin.DeleteRecords(topic, map[int32]int64{0: 1}))
	script.Check(admin.DeleteTopic(topic))
	return records.WereRead()
}

func main() {
	brokers, topic := script.Arguments()
	for name, version := range map[string]sarama.KafkaVersion{"default": sarama.DefaultVersion, "newest": sarama.MaxVersion} {
		fmt.Println("ok", run(brokers, topic+"-"+name, version), "records with version", version)
	}
}
