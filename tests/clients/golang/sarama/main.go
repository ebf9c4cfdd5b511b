// sarama: topics, idempotent records of all codecs, a group, commits, deletion.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/IBM/sarama"
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

type reader struct {
	wanted int
	mutex  sync.Mutex
	read   map[string]string
	done   chan struct{}
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
			expect(len(message.Headers) == 1 && string(message.Headers[0].Key) == "codec", "headers of %s", message.Key)
			session.MarkMessage(message, "read")
			r.mutex.Lock()
			_, again := r.read[string(message.Key)]
			expect(!again, "%s is there twice", message.Key)
			r.read[string(message.Key)] = string(message.Value)
			if len(r.read) == r.wanted {
				close(r.done)
			}
			r.mutex.Unlock()
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
	check(err)
	defer admin.Close()
	retention := "600000"
	detail := &sarama.TopicDetail{NumPartitions: 3, ReplicationFactor: 3, ConfigEntries: map[string]*string{"retention.ms": &retention}}
	check(admin.CreateTopic(topic, detail, false))
	err = admin.CreateTopic(topic, detail, false)
	expect(errors.Is(err, sarama.ErrTopicAlreadyExists), "created twice: %v", err)
	entries, err := admin.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: topic, ConfigNames: []string{"retention.ms"}})
	check(err)
	expect(len(entries) == 1 && entries[0].Value == retention, "configs %v", entries)
	check(admin.CreatePartitions(topic, 4, nil, false))
	cluster, _, err := admin.DescribeCluster()
	check(err)
	expect(len(cluster) == 3, "%d brokers", len(cluster))
	_, err = admin.DescribeLogDirs([]int32{1, 2, 3})
	check(err)

	wanted := map[string]string{}
	for _, codec := range []sarama.CompressionCodec{sarama.CompressionNone, sarama.CompressionGZIP, sarama.CompressionSnappy, sarama.CompressionLZ4, sarama.CompressionZSTD} {
		config := settings(version)
		config.Producer.Compression = codec
		producer, err := sarama.NewSyncProducer(brokers, config)
		check(err)
		var messages []*sarama.ProducerMessage
		for i := 0; i < count; i++ {
			key, value := fmt.Sprintf("%s-%d", codec, i), fmt.Sprintf("value %d äöü", i)
			wanted[key] = value
			messages = append(messages, &sarama.ProducerMessage{Topic: topic, Key: sarama.StringEncoder(key), Value: sarama.StringEncoder(value),
				Headers: []sarama.RecordHeader{{Key: []byte("codec"), Value: []byte(codec.String())}}})
		}
		check(producer.SendMessages(messages))
		check(producer.Close())
	}

	client, err := sarama.NewClient(brokers, settings(version))
	check(err)
	defer client.Close()
	total := int64(0)
	for partition := int32(0); partition < 4; partition++ {
		offset, err := client.GetOffset(topic, partition, sarama.OffsetNewest)
		check(err)
		total += offset
	}
	expect(total == int64(len(wanted)), "%d records in the log, %d produced", total, len(wanted))

	group := topic + "-group"
	consumer, err := sarama.NewConsumerGroup(brokers, group, settings(version))
	check(err)
	ctx, cancel := context.WithCancel(context.Background())
	r := &reader{wanted: len(wanted), read: map[string]string{}, done: make(chan struct{})}
	ended := make(chan error, 1)
	go func() { ended <- consumer.Consume(ctx, []string{topic}, r) }()
	select {
	case <-r.done:
	case err := <-ended:
		check(fmt.Errorf("the group ended early: %w", err))
	case <-time.After(60 * time.Second):
		check(fmt.Errorf("%d of %d read in 60 s", len(r.read), len(wanted)))
	}
	cancel()
	<-ended
	check(consumer.Close())
	for key, value := range wanted {
		expect(r.read[key] == value, "%s is %q", key, r.read[key])
	}
	offsets, err := admin.ListConsumerGroupOffsets(group, map[string][]int32{topic: {0, 1, 2, 3}})
	check(err)
	committed := int64(0)
	for _, block := range offsets.Blocks[topic] {
		committed += max(block.Offset, 0)
	}
	expect(committed == int64(len(wanted)), "%d committed of %d", committed, len(wanted))
	check(admin.DeleteConsumerGroup(group))
	check(admin.DeleteRecords(topic, map[int32]int64{0: 1}))
	check(admin.DeleteTopic(topic))
	return len(r.read)
}

func main() {
	brokers, topic := strings.Split(os.Args[1], ","), os.Args[2]
	for name, version := range map[string]sarama.KafkaVersion{"default": sarama.DefaultVersion, "newest": sarama.MaxVersion} {
		fmt.Println("ok", run(brokers, topic+"-"+name, version), "records with version", version)
	}
}
