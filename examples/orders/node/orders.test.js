// Tests of an order service in Node.js, with a cluster of their own:
//
//     npm install && kraft exec --faults -- npm test

import assert from 'node:assert'
import { execFileSync } from 'node:child_process'
import test from 'node:test'
import { Kafka, logLevel } from 'kafkajs'

// Breaks the cluster that this suite runs in: KRAFT_DATA names it.
const kraft = (...args) => execFileSync('kraft', args, { stdio: ['ignore', 'ignore', 'inherit'] })

async function place(topic, count, half) {
  const brokers = process.env.KAFKA_BOOTSTRAP_SERVERS.split(',')
  const kafka = new Kafka({ brokers, logLevel: logLevel.NOTHING, retry: { retries: 30, initialRetryTime: 50 } })
  const admin = kafka.admin()
  await admin.connect()
  await admin.createTopics({ topics: [{ topic, numPartitions: 1, replicationFactor: 3 }], waitForLeaders: true })
  const producer = kafka.producer({ idempotent: true })
  await producer.connect()
  try {
    for (let number = 0; number < count; number++) {
      if (number === Math.floor(count / 2)) half()
      await producer.send({ topic, messages: [{ value: String(number) }] })
    }
    const [{ high }] = await admin.fetchTopicOffsets(topic)
    return Number(high)
  } finally {
    await producer.disconnect()
    await admin.disconnect()
  }
}

test('no order is lost when the leader dies', async () => {
  assert.equal(await place('orders', 20, () => kraft('fault', 'kill', 'leader:orders-0')), 20)
  kraft('fault', 'heal')
})

test('an order is placed although a broker answers three times that it does not lead', async () => {
  assert.equal(await place('refused', 2, () => kraft('fault', 'answer', 'Produce', '--error', '6', '--times', '3')), 2)
  kraft('fault', 'heal')
})
