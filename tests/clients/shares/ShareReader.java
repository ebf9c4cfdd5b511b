import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import org.apache.kafka.clients.consumer.AcknowledgeType;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaShareConsumer;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicIdPartition;

/** Reads as a member of a share group until nothing has come for so long; a tenth is released once. Writes a line
 * "accepted VALUE COUNT" for each record whose acceptance was answered, and "unknown VALUE COUNT" for the others. */
public final class ShareReader {
    public static void main(String[] arguments) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", arguments[0]);
        properties.put("group.id", arguments[1]);
        properties.put("share.acknowledgement.mode", "explicit");
        properties.put("max.poll.records", "50");
        properties.put("key.deserializer", "org.apache.kafka.common.serialization.StringDeserializer");
        properties.put("value.deserializer", "org.apache.kafka.common.serialization.StringDeserializer");
        long idleMs = Long.parseLong(arguments[3]);
        try (KafkaShareConsumer<String, String> consumer = new KafkaShareConsumer<>(properties)) {
            consumer.subscribe(List.of(arguments[2]));
            long lastMs = System.currentTimeMillis();
            while (System.currentTimeMillis() < lastMs + idleMs) {
                ConsumerRecords<String, String> records = consumer.poll(Duration.ofMillis(500));
                if (!records.isEmpty()) {
                    take(consumer, records);
                    lastMs = System.currentTimeMillis();
                }
            }
        }
    }

    private static void take(KafkaShareConsumer<String, String> consumer, ConsumerRecords<String, String> records) {
        List<ConsumerRecord<String, String>> accepted = new ArrayList<>();
        for (ConsumerRecord<String, String> record : records) {
            boolean isReleased = record.offset() % 10 == 9 && count(record) == 1;
            consumer.acknowledge(record, isReleased ? AcknowledgeType.RELEASE : AcknowledgeType.ACCEPT);
            if (!isReleased) {
                accepted.add(record);
            }
        }
        Map<TopicIdPartition, Optional<KafkaException>> results = consumer.commitSync(Duration.ofSeconds(60));
        for (ConsumerRecord<String, String> record : accepted) {
            System.out.println((isDurable(record, results) ? "accepted " : "unknown ") + record.value() + " " + count(record));
        }
    }

    private static boolean isDurable(
            ConsumerRecord<String, String> record, Map<TopicIdPartition, Optional<KafkaException>> results) {
        return results.entrySet().stream()
                .anyMatch(each -> each.getKey().partition() == record.partition() && each.getValue().isEmpty());
    }

    private static int count(ConsumerRecord<String, String> record) {
        return record.deliveryCount().orElse((short) 0);
    }
}
