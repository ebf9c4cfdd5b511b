import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;

/** Writes and reads a topic in every way, with the login of a client.properties: FILE TOPIC. Prints a line for each. */
public class Secured {
    static final int RECORDS = 200;
    static final long LIMIT_MS = 60_000;
    static Properties login = new Properties();
    static String topic;

    public static void main(String[] arguments) throws Exception {
        try (var file = Files.newInputStream(Path.of(arguments[0]))) {
            login.load(file);
        }
        topic = arguments[1];
        try (Admin admin = Admin.create(login)) {
            admin.createTopics(List.of(new NewTopic(topic, 3, (short) 3))).all().get(60, TimeUnit.SECONDS);
            admin.incrementalAlterConfigs(Map.of(
                new org.apache.kafka.common.config.ConfigResource(
                    org.apache.kafka.common.config.ConfigResource.Type.GROUP, topic + "-share"),
                List.of(new AlterConfigOp(new ConfigEntry("share.auto.offset.reset", "earliest"), AlterConfigOp.OpType.SET))
            )).all().get(60, TimeUnit.SECONDS);
            System.out.println("admin " + admin.describeCluster().nodes().get(60, TimeUnit.SECONDS).size());
        }
        produce();
        transact();
        System.out.println("classic " + consume("classic"));
        System.out.println("consumer " + consume("consumer"));
        System.out.println("share " + share());
    }

    static Properties with(String... pairs) {
        Properties found = new Properties();
        found.putAll(login);
        for (int at = 0; at < pairs.length; at += 2) found.put(pairs[at], pairs[at + 1]);
        String string = "org.apache.kafka.common.serialization.String";
        for (String each : List.of("key.serializer", "value.serializer")) found.put(each, string + "Serializer");
        for (String each : List.of("key.deserializer", "value.deserializer")) found.put(each, string + "Deserializer");
        return found;
    }

    static void produce() throws Exception {
        try (var producer = new KafkaProducer<String, String>(with("enable.idempotence", "true"))) {
            for (int number = 0; number < RECORDS; number++)
                producer.send(new ProducerRecord<>(topic, "k" + number, "v" + number));
            producer.flush();
            System.out.println("produced " + producer.partitionsFor(topic).size());
        }
    }

    static void transact() throws Exception {
        try (var producer = new KafkaProducer<String, String>(with("transactional.id", topic))) {
            producer.initTransactions();
            producer.beginTransaction();
            producer.send(new ProducerRecord<>(topic, "aborted", "aborted"));
            producer.flush();
            producer.abortTransaction();
            producer.beginTransaction();
            producer.send(new ProducerRecord<>(topic, "committed", "committed"));
            producer.sendOffsetsToTransaction(
                Map.of(new TopicPartition(topic, 0), new OffsetAndMetadata(0)), new ConsumerGroupMetadata(topic + "-eos"));
            producer.commitTransaction();
            System.out.println("transacted");
        }
    }

    static int consume(String protocol) {
        Properties own = with("group.id", topic + "-" + protocol, "group.protocol", protocol,
            "auto.offset.reset", "earliest", "isolation.level", "read_committed");
        Set<String> seen = new HashSet<>();
        long ends = System.currentTimeMillis() + LIMIT_MS;
        try (var consumer = new KafkaConsumer<String, String>(own)) {
            consumer.subscribe(List.of(topic));
            while (seen.size() < RECORDS + 1 && System.currentTimeMillis() < ends)
                for (var record : consumer.poll(Duration.ofMillis(500))) seen.add(record.value());
            consumer.commitSync();
        }
        if (seen.contains("aborted")) throw new IllegalStateException("an aborted record was read");
        return seen.size();
    }

    static int share() {
        Set<String> seen = new HashSet<>();
        long ends = System.currentTimeMillis() + LIMIT_MS;
        try (var consumer = new KafkaShareConsumer<String, String>(with("group.id", topic + "-share"))) {
            consumer.subscribe(List.of(topic));
            while (seen.size() < RECORDS + 1 && System.currentTimeMillis() < ends)
                for (var record : consumer.poll(Duration.ofMillis(500))) seen.add(record.value());
            consumer.commitSync();
        }
        return Math.min(seen.size(), RECORDS + 1);
    }
}
