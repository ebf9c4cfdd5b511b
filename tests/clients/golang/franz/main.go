// franz-go: topics, idempotent records of all codecs, two members of a group, commits, deletion.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
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
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	check(err)
	defer client.Close()
	admin := kadm.NewClient(client)
	retention := "600000"
	_, err = admin.CreateTopic(ctx, 3, 3, map[string]*string{"retention.ms": &retention}, topic)
	check(err)
	_, err = admin.CreateTopic(ctx, 3, 3, nil, topic)
	expect(errors.Is(err, kerr.TopicAlreadyExists), "created twice: %v", err)
	configs, err := admin.DescribeTopicConfigs(ctx, topic)
	check(err)
	found := ""
	for _, config := range configs[0].Configs {
		if config.Key == "retention.ms" {
			found = config.MaybeValue()
		}
	}
	expect(found == retention, "retention.ms is %q", found)
	brokersFound, err := admin.ListBrokers(ctx)
	check(err)
	expect(len(brokersFound) == 3, "%d brokers", len(brokersFound))

	wanted := map[string]string{}
	codecs := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	for name, codec := range codecs {
		producer, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ProducerBatchCompression(codec))
		check(err)
		for i := 0; i < count; i++ {
			key, value := fmt.Sprintf("%s-%d", name, i), fmt.Sprintf("value %d äöü", i)
			wanted[key] = value
			record := &kgo.Record{Topic: topic, Key: []byte(key), Value: []byte(value),
				Headers: []kgo.RecordHeader{{Key: "codec", Value: []byte(name)}}}
			producer.Produce(ctx, record, func(_ *kgo.Record, err error) { check(err) })
		}
		check(producer.Flush(ctx))
		producer.Close()
	}
	ends, err := admin.ListEndOffsets(ctx, topic)
	check(err)
	total := int64(0)
	ends.Each(func(o kadm.ListedOffset) { check(o.Err); total += o.Offset })
	expect(total == int64(len(wanted)), "%d records in the log, %d produced", total, len(wanted))

	group := topic + "-group"
	read := map[string]string{}
	for member := 0; member < 2; member++ {
		consumer, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit())
		check(err)
		for len(read) < len(wanted)*(member+1)/2 {
			fetches := consumer.PollRecords(ctx, 500)
			for _, fetchError := range fetches.Errors() {
				check(fetchError.Err)
			}
			fetches.EachRecord(func(r *kgo.Record) {
				expect(len(r.Headers) == 1 && r.Headers[0].Key == "codec", "headers of %s", r.Key)
				_, again := read[string(r.Key)]
				expect(!again, "%s is there twice", r.Key)
				read[string(r.Key)] = string(r.Value)
			})
			check(consumer.CommitUncommittedOffsets(ctx))
		}
		consumer.Close() // the second member goes on at what the first has committed
	}
	expect(len(read) == len(wanted), "%d read of %d", len(read), len(wanted))
	for key, value := range wanted {
		expect(read[key] == value, "%s is %q", key, read[key])
	}
	lags, err := admin.Lag(ctx, group)
	check(err)
	expect(lags[group].Lag.Total() == 0, "lag %d", lags[group].Lag.Total())
	_, err = admin.DeleteGroups(ctx, group)
	check(err)
	deleted, err := admin.DeleteTopics(ctx, topic)
	check(err)
	check(deleted[topic].Err)
	fmt.Println("ok", len(read), "records")
}
