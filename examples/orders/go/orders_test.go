// Tests of an order service in Go, with a cluster of their own:
//
//	kraft exec --faults -- go test ./...
package orders

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// kraft breaks the cluster that this suite runs in: KRAFT_DATA names it.
func kraft(t *testing.T, arguments ...string) {
	t.Helper()
	if said, err := exec.Command("kraft", arguments...).CombinedOutput(); err != nil {
		t.Fatalf("kraft %s: %v\n%s", strings.Join(arguments, " "), err, said)
	}
}

func place(t *testing.T, topic string, count int, half func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(os.Getenv("KAFKA_BOOTSTRAP_SERVERS"), ",")...),
		kgo.DefaultProduceTopic(topic),
	)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := kadm.NewClient(client).CreateTopic(ctx, 1, 3, nil, topic); err != nil {
		t.Fatal(err)
	}
	for number := 0; number < count; number++ {
		if number == count/2 {
			half()
		}
		if err := client.ProduceSync(ctx, kgo.StringRecord(fmt.Sprint(number))).FirstErr(); err != nil {
			t.Fatalf("order %d: %v", number, err)
		}
	}
	ends, err := kadm.NewClient(client).ListEndOffsets(ctx, topic)
	if err != nil {
		t.Fatal(err)
	}
	end, _ := ends.Lookup(topic, 0)
	if end.Offset != int64(count) {
		t.Fatalf("%d orders were placed, and %d are there", count, end.Offset)
	}
}

func TestNoOrderIsLostOrDoubledWhenTheLeaderDies(t *testing.T) {
	place(t, "orders", 50, func() { kraft(t, "fault", "kill", "leader:orders-0") })
	kraft(t, "fault", "heal")
}

func TestAnOrderWhoseAnswerIsLostIsPlacedOnce(t *testing.T) {
	place(t, "lost", 2, func() { kraft(t, "fault", "drop-answer", "Produce", "--topic", "lost") })
	kraft(t, "fault", "heal")
}
