// franz-go with TLS and a login: a topic, idempotent records, a transaction, a group; with the mechanism of MECHANISM.
//
// secured BOOTSTRAP TOPIC, with USER_NAME, PASSWORD_FILE, CA_FILE, MECHANISM and TOKEN in the environment
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"time"

	"kraft.example/clients/script"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

const records = 500

func main() {
	brokers, topic := script.Arguments()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Second)
	defer cancel()
	secured := []kgo.Opt{kgo.SeedBrokers(brokers...), kgo.DialTLSConfig(trust()), kgo.SASL(login())}
	with := func(more ...kgo.Opt) *kgo.Client {
		client, err := kgo.NewClient(append(append([]kgo.Opt{}, secured...), more...)...)
		script.Check(err)
		return client
	}
	producer := with()
	defer producer.Close()
	_, err := kadm.NewClient(producer).CreateTopic(ctx, 3, 3, nil, topic)
	script.Check(err)
	for i := 0; i < records; i++ {
		producer.Produce(ctx, record(topic, fmt.Sprint("plain ", i)), func(_ *kgo.Record, err error) { script.Check(err) })
	}
	script.Check(producer.Flush(ctx))

	transactional := with(kgo.TransactionalID(topic))
	for _, end := range []kgo.TransactionEndTry{kgo.TryAbort, kgo.TryCommit} {
		script.Check(transactional.BeginTransaction())
		script.Check(transactional.ProduceSync(ctx, record(topic, fmt.Sprint("committed ", end))).FirstErr())
		script.Check(transactional.EndTransaction(ctx, end))
	}
	transactional.Close()

	consumer := with(kgo.ConsumerGroup(topic), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	seen := map[string]bool{}
	for len(seen) < records+1 {
		fetches := consumer.PollFetches(ctx)
		for _, fetchError := range fetches.Errors() {
			script.Check(fetchError.Err)
		}
		fetches.EachRecord(func(r *kgo.Record) { seen[string(r.Value)] = true })
	}
	script.Check(consumer.CommitUncommittedOffsets(ctx))
	consumer.Close()
	script.Expect(!seen[fmt.Sprint("committed ", kgo.TryAbort)], "an aborted record was read")
	fmt.Println("ok", len(seen), "records")
}

func record(topic, value string) *kgo.Record {
	return &kgo.Record{Topic: topic, Key: []byte(value), Value: []byte(value)}
}

func trust() *tls.Config {
	text, err := os.ReadFile(os.Getenv("CA_FILE"))
	script.Check(err)
	pool := x509.NewCertPool()
	script.Expect(pool.AppendCertsFromPEM(text), "no certificate in CA_FILE")
	return &tls.Config{RootCAs: pool}
}

func login() sasl.Mechanism {
	password, err := os.ReadFile(os.Getenv("PASSWORD_FILE"))
	script.Check(err)
	user, pass := os.Getenv("USER_NAME"), string(password)
	switch os.Getenv("MECHANISM") {
	case "SCRAM-SHA-256":
		return scram.Auth{User: user, Pass: pass}.AsSha256Mechanism()
	case "SCRAM-SHA-512":
		return scram.Auth{User: user, Pass: pass}.AsSha512Mechanism()
	case "PLAIN":
		return plain.Auth{User: user, Pass: pass}.AsMechanism()
	default:
		return oauth.Auth{Token: os.Getenv("TOKEN")}.AsMechanism()
	}
}
