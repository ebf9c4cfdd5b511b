// @confluentinc/kafka-javascript: topics, records, groups of both protocols, commits, deletion.
// node confluent.js BOOTSTRAP TOPIC
import { bootstrap, createTopic, expect, load, readAsGroup, run, topic, write } from "./common.js";

const { Kafka, CompressionTypes, logLevel } = load("@confluentinc/kafka-javascript").KafkaJS;
const kafka = new Kafka({ kafkaJS: { brokers: bootstrap.split(","), clientId: "script", logLevel: logLevel.ERROR } });
const CODECS = ["None", "GZIP", "SNAPPY", "LZ4"]; // zstd is not in the librdkafka that is built here

run(async () => {
  const admin = kafka.admin();
  await admin.connect();
  await createTopic(admin);
  const described = await admin.fetchTopicMetadata({ topics: [topic] });
  expect(described.some((each) => each.name === topic && each.partitions.length === 3), "three partitions");
  const wanted = await write(admin, CODECS, async (codec, messages) => {
    const producer = kafka.producer({ kafkaJS: { idempotent: true, compression: CompressionTypes[codec] } });
    await producer.connect();
    await producer.send({ topic, messages });
    await producer.disconnect();
  });
  for (const protocol of ["classic", "consumer"]) {
    const groupId = `${topic}-${protocol}`;
    const consumer = kafka.consumer({
      kafkaJS: { groupId, fromBeginning: true, autoCommit: true },
      "group.protocol": protocol,
    });
    await readAsGroup(admin, groupId, wanted, consumer, { topics: [topic] });
  }
  await admin.deleteTopics({ topics: [topic] });
  await admin.disconnect();
  return wanted.size;
});
