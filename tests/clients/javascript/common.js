// What the programs share. Their argument is BOOTSTRAP TOPIC, and MODULES in the environment has the packages.
import { createRequire } from "node:module";

export const load = createRequire(process.env.MODULES + "/");
export const [bootstrap, topic] = process.argv.slice(2);
const COUNT = 1000;
const READ_MS = 60_000;

export function expect(is, what) {
  if (!is) throw new Error(what);
}

// Creates the topic with three partitions, and looks whether it is there.
export async function createTopic(admin) {
  const wanted = { topic, numPartitions: 3, replicationFactor: 3, configEntries: [{ name: "retention.ms", value: "600000" }] };
  expect(await admin.createTopics({ topics: [wanted] }), "the topic is new");
  expect((await admin.listTopics()).includes(topic), "the topic is listed");
}

// Writes so many records of each codec as `send(codec, messages)` likes, and looks at the log's ends. Values by key.
export async function write(admin, codecs, send) {
  const wanted = new Map();
  for (const codec of codecs) {
    const messages = [];
    for (let i = 0; i < COUNT; i++) {
      const [key, value] = [`${codec}-${i}`, `value ${i} äöü`];
      wanted.set(key, value);
      messages.push({ key, value, headers: { codec } });
    }
    await send(codec, messages);
  }
  const offsets = await admin.fetchTopicOffsets(topic);
  const total = offsets.reduce((sum, each) => sum + Number(each.high), 0);
  expect(total === wanted.size, `${total} records in the log, ${wanted.size} produced`);
  return wanted;
}

// A group reads each of them once, and commits them all; then it is deleted.
export async function readAsGroup(admin, groupId, wanted, consumer, subscription) {
  await consumer.connect();
  await consumer.subscribe(subscription);
  const read = new Map();
  await new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error(`${read.size} of ${wanted.size} read in ${READ_MS} ms`)), READ_MS).unref();
    Promise.resolve(consumer.run({
      eachMessage: async ({ message }) => {
        const key = message.key.toString();
        if (read.has(key)) reject(new Error(`${key} is there twice`));
        if (!message.headers?.codec) reject(new Error(`headers of ${key}`));
        read.set(key, message.value.toString());
        if (read.size === wanted.size) resolve();
      },
    })).catch(reject);
  });
  await consumer.disconnect();
  for (const [key, value] of wanted) expect(read.get(key) === value, `${key} is ${read.get(key)}`);
  const committed = (await admin.fetchOffsets({ groupId, topics: [topic] }))[0].partitions;
  const sum = committed.reduce((total, each) => total + Math.max(0, Number(each.offset)), 0);
  expect(sum === wanted.size, `${sum} committed of ${wanted.size}`);
  await admin.deleteGroups([groupId]);
}

// Runs a program, which resolves to how many records it had.
export function run(program) {
  program().then(
    (count) => {
      console.log(`ok ${count} records`);
      process.exit(0);
    },
    (error) => {
      console.log("FAILED", error);
      process.exit(1);
    },
  );
}
