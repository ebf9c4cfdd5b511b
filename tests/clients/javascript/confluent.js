// @confluentinc/kafka-javascript: topics, records, a group, commits, deletion. node confluent.js BOOTSTRAP TOPIC
import { createRequire } from "node:module";

const require = createRequire(process.env.MODULES + "/");
const { Kafka, CompressionTypes, logLevel } = require("@confluentinc/kafka-javascript").KafkaJS;
const [bootstrap, topic] = process.argv.slice(2);
const kafka = new Kafka({ kafkaJS: { brokers: bootstrap.split(","), clientId: "script", logLevel: logLevel.ERROR } });
const COUNT = 1000;

function expect(is, what) {
  if (!is) throw new Error(what);
}

async function main() {
  const admin = kafka.admin();
  await admin.connect();
  const wantedTopic = { topic, numPartitions: 3, replicationFactor: 3, configEntries: [{ name: "retention.ms", value: "600000" }] };
  expect(await admin.createTopics({ topics: [wantedTopic] }), "the topic is new");
  expect((await admin.listTopics()).includes(topic), "the topic is listed");
  const described = await admin.fetchTopicMetadata({ topics: [topic] });
  expect(described.some((each) => each.name === topic && each.partitions.length === 3), "three partitions");

  const wanted = new Map();
  for (const codec of ["None", "GZIP", "SNAPPY", "LZ4"]) { // zstd is not in the librdkafka that is built here
    const producer = kafka.producer({ kafkaJS: { idempotent: true, compression: CompressionTypes[codec] } });
    await producer.connect();
    const messages = [];
    for (let i = 0; i < COUNT; i++) {
      const [key, value] = [`${codec}-${i}`, `value ${i} äöü`];
      wanted.set(key, value);
      messages.push({ key, value, headers: { codec } });
    }
    await producer.send({ topic, messages });
    await producer.disconnect();
  }
  const offsets = await admin.fetchTopicOffsets(topic);
  const total = offsets.reduce((sum, each) => sum + Number(each.high), 0);
  expect(total === wanted.size, `${total} records in the log, ${wanted.size} produced`);

  for (const protocol of ["classic", "consumer"]) {
    const groupId = `${topic}-${protocol}`;
    const consumer = kafka.consumer({ kafkaJS: { groupId, fromBeginning: true, autoCommit: true }, "group.protocol": protocol });
    await consumer.connect();
    await consumer.subscribe({ topics: [topic] });
    const read = new Map();
    await new Promise((resolve, reject) => {
      setTimeout(() => reject(new Error(`${read.size} of ${wanted.size} read in 60 s`)), 60_000).unref();
      consumer.run({
        eachMessage: async ({ message }) => {
          const key = message.key.toString();
          if (read.has(key)) reject(new Error(`${key} is there twice`));
          if (!message.headers?.codec) reject(new Error(`headers of ${key}`));
          read.set(key, message.value.toString());
          if (read.size === wanted.size) resolve();
        },
      }).catch(reject);
    });
    await consumer.disconnect();
    for (const [key, value] of wanted) expect(read.get(key) === value, `${key} is ${read.get(key)}`);
    const committed = (await admin.fetchOffsets({ groupId, topics: [topic] }))[0].partitions;
    const sum = committed.reduce((total, each) => total + Math.max(0, Number(each.offset)), 0);
    expect(sum === wanted.size, `${sum} committed of ${wanted.size}`);
    await admin.deleteGroups([groupId]);
  }
  await admin.deleteTopics({ topics: [topic] });
  await admin.disconnect();
  console.log(`ok ${wanted.size} records`);
}

main().then(() => process.exit(0), (error) => {
  console.log("FAILED", error);
  process.exit(1);
});
