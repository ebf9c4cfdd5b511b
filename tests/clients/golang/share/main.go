// franz-go's share groups: one member of a group that accepts records until it is killed. A tenth is released once.
//
// share BOOTSTRAP TOPIC GROUP
//
// It writes "begun VALUE" before it sends the acceptance of a record, and "accepted VALUE" when that was answered with
// success. What is only begun may be accepted, or handed out again.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"kraft.example/clients/script"

	"github.com/twmb/franz-go/pkg/kgo"
)

// recordsOfOne poll, at most.
const recordsOfOne = 50

const flushTime = 60 * time.Second

// refused are the partitions whose acknowledgements failed since the last look.
type refused struct {
	mutex      sync.Mutex
	partitions map[int32]error
}

func (r *refused) add(_ *kgo.Client, results kgo.ShareAckResults) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	for _, each := range results {
		if each.Err != nil {
			r.partitions[each.Partition] = each.Err
		}
	}
}

func (r *refused) taken() map[int32]error {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	taken := r.partitions
	r.partitions = map[int32]error{}
	return taken
}

func main() {
	brokers, topic, group := strings.Split(os.Args[1], ","), os.Args[2], os.Args[3]
	failed := &refused{partitions: map[int32]error{}}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(brokers...), kgo.ShareGroup(group), kgo.ConsumeTopics(topic), kgo.ShareMaxRecords(recordsOfOne),
		kgo.ShareAckCallback(failed.add),
	)
	script.Check(err)
	defer client.Close()
	for {
		fetches := client.PollRecords(context.Background(), recordsOfOne)
		for _, each := range fetches.Errors() {
			fmt.Println("fetch", each.Topic, each.Partition, each.Err) // what was fetched stands all the same
		}
		accept(client, failed, fetches.Records())
	}
}

func accept(client *kgo.Client, failed *refused, records []*kgo.Record) {
	failed.taken()
	var accepted []*kgo.Record
	for _, record := range records {
		if record.Offset%10 == 9 && record.DeliveryCount() == 1 {
			record.Ack(kgo.AckRelease)
			continue
		}
		fmt.Println("begun", string(record.Value))
		record.Ack(kgo.AckAccept)
		accepted = append(accepted, record)
	}
	ctx, cancel := context.WithTimeout(context.Background(), flushTime)
	defer cancel()
	if err := client.FlushAcks(ctx); err != nil {
		fmt.Println("flush", err)
		return
	}
	not := failed.taken()
	for _, record := range accepted {
		if err, is := not[record.Partition]; is {
			fmt.Println("refused", string(record.Value), err)
		} else {
			fmt.Println("accepted", string(record.Value))
		}
	}
}
