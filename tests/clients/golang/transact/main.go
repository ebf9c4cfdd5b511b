// franz-go's GroupTransactSession: one instance of a group that copies a topic to another, exactly once, until it is
// killed. It ends with 1 when its session cannot go on, as the library asks of it: the next instance of its
// transactional id fences it and goes on.
//
// transact BOOTSTRAP SOURCE SINK GROUP TRANSACTIONAL_ID [CLIENT]
//
// CLIENT is the folder `client` of a cluster that `kraft up --secure` has started.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"kraft.example/clients/script"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// recordsOfOne transaction, at most.
const recordsOfOne = 40

// batchBytes lets a transaction take several batches for each partition. An idempotent producer of franz-go has up to
// five produce requests in flight to each broker, a number that it lets nobody choose.
const batchBytes = 512

func main() {
	brokers, source, sink, group, id := strings.Split(os.Args[1], ","), os.Args[2], os.Args[3], os.Args[4], os.Args[5]
	ctx := context.Background()
	options := []kgo.Opt{
		kgo.SeedBrokers(brokers...), kgo.ConsumerGroup(group), kgo.ConsumeTopics(source), kgo.DefaultProduceTopic(sink),
		kgo.TransactionalID(id), kgo.TransactionTimeout(20*time.Second), kgo.SessionTimeout(6*time.Second),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.ProducerLinger(0), kgo.ProducerBatchMaxBytes(batchBytes),
	}
	if len(os.Args) > 6 {
		options = append(options, login(os.Args[6])...)
	}
	session, err := kgo.NewGroupTransactSession(options...)
	script.Check(err)
	defer session.Close()
	committed, aborted := 0, 0
	for number := 1; ; number++ {
		fetches := session.PollRecords(ctx, recordsOfOne)
		for _, failed := range fetches.Errors() {
			fmt.Println("fetch", failed.Topic, failed.Partition, failed.Err) // what was fetched stands all the same
		}
		if fetches.NumRecords() == 0 {
			continue
		}
		script.Check(session.Begin())
		first := kgo.AbortingFirstErrPromise(session.Client())
		fetches.EachRecord(func(r *kgo.Record) {
			session.Produce(ctx, &kgo.Record{Key: r.Key, Value: r.Value}, first.Promise())
		})
		isCommit := first.Err() == nil && number%10 != 0 // one of ten changes its mind
		done, err := session.End(ctx, kgo.TransactionEndTry(isCommit))
		script.Check(err)
		if done {
			committed++
		} else {
			aborted++
		}
		fmt.Println(committed, "committed,", aborted, "aborted")
	}
}

// login as the first user of the cluster, with TLS.
func login(folder string) []kgo.Opt {
	ca, err := os.ReadFile(filepath.Join(folder, "ca.pem"))
	script.Check(err)
	password, err := os.ReadFile(filepath.Join(folder, "password"))
	script.Check(err)
	pool := x509.NewCertPool()
	script.Expect(pool.AppendCertsFromPEM(ca), "no certificate in ca.pem")
	user := scram.Auth{User: "admin", Pass: strings.TrimSpace(string(password))}
	return []kgo.Opt{kgo.DialTLSConfig(&tls.Config{RootCAs: pool}), kgo.SASL(user.AsSha512Mechanism())}
}
