// franz-go: topics, idempotent records of all codecs, two members of a group, commits, deletion.
package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"kraft.example/clients/script"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
	brokers, topic := script.Arguments()
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	script.Check(err)
	defer client.Close()
	admin := kadm.NewClient(client)
	retention := "600000"
	_, err = admin.CreateTopic(ctx, 3, 3, map[string]*string{"retention.ms": &retention}, topic)
	script.Check(err)
	_, err = admin.CreateTopic(ctx, 3, 3, nil, topic)
	script.Expect(errors.Is(err, kerr.TopicAlreadyExists), "created twice: %v", err)
	configs, err := admin.DescribeTopicConfigs(ctx, topic)
	script.Check(err)
	found := ""
	for _, config := range configs[0].Configs {
		if config.Key == "retention.ms" {
			found = config.MaybeValue()
		}
	}
	script.Expect(found == retention, "retention.ms is %q", found)
	brokersFound, err := admin.ListBrokers(ctx)
	script.Check(err)
	script.Expect(len(brokersFound) == 3, "%d brokers", len(brokersFound))

	records := script.NewRecords()
	codecs := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	for name, codec := range codecs {
		producer, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ProducerBatchCompression(codec))
		script.Check(err)
		for i := 0; i < script.Count; i++ {
			key, value := records.New(name, i)
			record := &kgo.Record{Topic: topic, Key: []byte(key), Value: []byte(value),
				Headers: []kgo.RecordHeader{{Key: "codec", Value: []byte(name)}}}
			producer.Produce(ctx, record, func(_ *kgo.Record, err error) { script.Check(err) })
		}
		script.Check(producer.Flush(ctx))
		producer.Close()
	}
	ends, err := admin.ListEndOffsets(ctx, topic)
	script.Check(err)
	total := int64(0)
	ends.Each(func(o kadm.ListedOffset) { script.Check(o.Err); total += o.Offset })
	script.Expect(total == int64(records.Wanted()), "%d records in the log, %d produced", total, records.Wanted())

	group := topic + "-group"
	for member := 0; member < 2; member++ {
		consumer, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit())
		script.Check(err)
		for records.WereRead() < records.Wanted()*(member+1)/2 {
			fetches := consumer.PollRecords(ctx, 500)
			for _, fetchError := range fetches.Errors() {
				script.Check(fetchError.Err)
			}
			fetches.EachRecord(func(r *kgo.Record) {
				var headers []string
				for _, header := range r.Headers {
					headers = append(headers, header.Key)
				}
				records.Read(r.Key, r.Value, headers...)
			})
			script.Check(consumer.CommitUncommittedOffsets(ctx))
		}
		consumer.Close() // the second member goes on at what the first has committed
	}
	records.Compare()
	lags, err := admin.Lag(ctx, group)
	script.Check(err)
	script.Expect(lags[group].Lag.Total() == 0, "lag %d", lags[group].Lag.Total())
	_, err = admin.DeleteGroups(ctx, group)
	script.Check(err)
	deleted, err := admin.DeleteTopics(ctx, topic)
	script.Check(err)
	script.Check(deleted[topic].Err)
	fmt.Println("ok", records.WereRead(), "records")
}
