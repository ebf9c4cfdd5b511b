// kafkajs: topics, records, a group, commits, deletion. node kafkajs.js BOOTSTRAP TOPIC
import { bootstrap, createTopic, expect, load, readAsGroup, run, topic, write } from "./common.js";

const { Kafka, CompressionTypes, ConfigResourceTypes, logLevel } = load("kafkajs");
const kafka = new Kafka({ brokers: bootstrap.split(","), clientId: "script", logLevel: logLevel.ERROR });
const CODECS = ["None", "GZIP"]; // the others are packages of their own

run(async () => {
  const admin = kafka.admin();
  await admin.connect();
  await createTopic(admin);
  const metadata = await admin.fetchTopicMetadata({ topics: [topic] });
  expect(metadata.topics[0].partitions.length === 3, "three partitions");
  expect((await retention(admin)) === "600000", "retention.ms as it was created");
  const entries = { type: ConfigResourceTypes.TOPIC, name: topic, configEntries: [{ name: "flush.ms", value: "5" }] };
  await admin.alterConfigs({ validateOnly: false, resources: [entries] });
  expect((await retention(admin)) === "604800000", "AlterConfigs replaces all");
  expect((await admin.describeCluster()).brokers.length === 3, "three brokers");
  const wanted = await write(admin, CODECS, async (codec, messages) => {
    const producer = kafka.producer({ idempotent: true });
    await producer.connect();
    await producer.send({ topic, messages, acks: -1, compression: CompressionTypes[codec] });
    await producer.disconnect();
  });
  const groupId = `${topic}-group`;
  await readAsGroup(admin, groupId, wanted, kafka.consumer({ groupId }), { topics: [topic], fromBeginning: true });
  await admin.deleteTopics({ topics: [topic] });
  await admin.disconnect();
  return wanted.size;
});

async function retention(admin) {
  const asked = { type: ConfigResourceTypes.TOPIC, name: topic, configNames: ["retention.ms"] };
  return (await admin.describeConfigs({ resources: [asked] })).resources[0].configEntries[0].configValue;
}
