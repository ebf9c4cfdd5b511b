// rdkafka: topics, idempotent records of all codecs, offsets, two members of a group, commits, deletion.
use std::collections::HashMap;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

const COUNT: usize = 1000;
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
const PATIENCE: Duration = Duration::from_secs(30);

type Failure = Box<dyn std::error::Error>;

fn expect(is: bool, what: String) -> Result<(), Failure> {
    if is {
        Ok(())
    } else {
        Err(what.into())
    }
}

fn config(bootstrap: &str) -> ClientConfig {
    let mut made = ClientConfig::new();
    made.set("bootstrap.servers", bootstrap);
    made
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match run(&arguments[1], &arguments[2]).await {
        Ok(count) => println!("ok {count} records"),
        Err(failure) => {
            println!("FAILED {failure}");
            std::process::exit(1);
        }
    }
}

async fn run(bootstrap: &str, topic: &str) -> Result<usize, Failure> {
    let admin: AdminClient<DefaultClientContext> = config(bootstrap).create()?;
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
    create(&admin, &options, topic).await?;
    let wanted = produce(bootstrap, topic).await?;
    let group = format!("{topic}-group");
    let read = consume(bootstrap, topic, &group, &wanted)?;
    compare(&wanted, &read)?;
    committed(bootstrap, topic, &group, wanted.len())?;
    let deleted = admin.delete_groups(&[&group], &options).await?;
    expect(
        deleted.len() == 1 && deleted[0].is_ok(),
        format!("group deleted: {deleted:?}"),
    )?;
    let deleted = admin.delete_topics(&[topic], &options).await?;
    expect(
        deleted == [Ok(topic.to_string())],
        format!("topic deleted: {deleted:?}"),
    )?;
    let again = admin.delete_topics(&[topic], &options).await?;
    let unknown = RDKafkaErrorCode::UnknownTopicOrPartition;
    expect(
        again == [Err((topic.to_string(), unknown))],
        format!("deleted twice: {again:?}"),
    )?;
    Ok(read.len())
}

async fn create(
    admin: &AdminClient<DefaultClientContext>,
    options: &AdminOptions,
    topic: &str,
) -> Result<(), Failure> {
    let wanted = NewTopic::new(topic, 3, TopicReplication::Fixed(3)).set("retention.ms", "600000");
    let created = admin.create_topics([&wanted], options).await?;
    expect(
        created == [Ok(topic.to_string())],
        format!("created: {created:?}"),
    )?;
    let again = admin.create_topics([&wanted], options).await?;
    let exists = RDKafkaErrorCode::TopicAlreadyExists;
    expect(
        again == [Err((topic.to_string(), exists))],
        format!("created twice: {again:?}"),
    )?;
    let described = admin
        .describe_configs(&[ResourceSpecifier::Topic(topic)], options)
        .await?;
    let found = match &described[0] {
        Ok(resource) => resource
            .get("retention.ms")
            .and_then(|entry| entry.value.clone()),
        Err(code) => return Err(format!("describe_configs: {code}").into()),
    };
    expect(
        found.as_deref() == Some("600000"),
        format!("retention.ms is {found:?}"),
    )?;
    let metadata = admin.inner().fetch_metadata(Some(topic), PATIENCE)?;
    expect(
        metadata.brokers().len() == 3,
        format!("{} brokers", metadata.brokers().len()),
    )?;
    let replicas: Vec<usize> = metadata.topics()[0]
        .partitions()
        .iter()
        .map(|each| each.replicas().len())
        .collect();
    expect(replicas == [3, 3, 3], format!("replicas: {replicas:?}"))
}

async fn produce(bootstrap: &str, topic: &str) -> Result<HashMap<String, String>, Failure> {
    let mut wanted = HashMap::new();
    for codec in CODECS {
        let producer: FutureProducer = config(bootstrap)
            .set("enable.idempotence", "true")
            .set("compression.type", codec)
            .set("linger.ms", "20")
            .create()?;
        let mut sent = Vec::new();
        for number in 0..COUNT {
            let (key, value) = (format!("{codec}-{number}"), format!("value {number} äöü"));
            let headers = OwnedHeaders::new().insert(Header {
                key: "codec",
                value: Some(codec),
            });
            let record = FutureRecord::to(topic)
                .key(&key)
                .payload(&value)
                .headers(headers);
            sent.push(producer.send_result(record).map_err(|(error, _)| error)?);
            wanted.insert(key, value);
        }
        for delivery in sent {
            delivery.await?.map_err(|(error, _)| error)?;
        }
        producer.flush(PATIENCE)?;
    }
    Ok(wanted)
}

fn compare(
    wanted: &HashMap<String, String>,
    read: &HashMap<String, String>,
) -> Result<(), Failure> {
    expect(
        read.len() == wanted.len(),
        format!("{} read of {}", read.len(), wanted.len()),
    )?;
    for (key, value) in wanted {
        expect(
            read.get(key) == Some(value),
            format!("{key} is {:?}", read.get(key)),
        )?;
    }
    Ok(())
}

fn consume(
    bootstrap: &str,
    topic: &str,
    group: &str,
    wanted: &HashMap<String, String>,
) -> Result<HashMap<String, String>, Failure> {
    let mut read = HashMap::new();
    for member in 1..=2 {
        let consumer: BaseConsumer = config(bootstrap)
            .set("group.id", group)
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "false")
            .create()?;
        consumer.subscribe(&[topic])?;
        let end = Instant::now() + PATIENCE;
        while read.len() < wanted.len() * member / 2 {
            expect(
                Instant::now() < end,
                format!("{} of {} read in {PATIENCE:?}", read.len(), wanted.len()),
            )?;
            let Some(message) = consumer.poll(Duration::from_millis(500)) else {
                continue;
            };
            let message = message?;
            let key = String::from_utf8(message.key().ok_or("no key")?.to_vec())?;
            let value = String::from_utf8(message.payload().ok_or("no value")?.to_vec())?;
            let headers = message.headers().ok_or("no headers")?;
            let codec = key.split('-').next().unwrap_or_default().as_bytes();
            let is_alike = headers.count() == 1
                && headers.get(0).key == "codec"
                && headers.get(0).value == Some(codec);
            expect(is_alike, format!("headers of {key}"))?;
            expect(
                read.insert(key.clone(), value).is_none(),
                format!("{key} is there twice"),
            )?;
        }
        consumer.commit_consumer_state(CommitMode::Sync)?; // the second member goes on at what the first has committed
    }
    Ok(read)
}

fn committed(bootstrap: &str, topic: &str, group: &str, count: usize) -> Result<(), Failure> {
    let consumer: BaseConsumer = config(bootstrap).set("group.id", group).create()?;
    let mut asked = TopicPartitionList::new();
    let (mut first, mut last) = (0, 0);
    for partition in 0..3 {
        let (low, high) = consumer.fetch_watermarks(topic, partition, PATIENCE)?;
        first += low;
        last += high;
        asked.add_partition_offset(topic, partition, Offset::Offset(1))?; // a timestamp: the first record after it
    }
    expect(
        (first, last) == (0, count as i64),
        format!("offsets {first} to {last}, {count} produced"),
    )?;
    let by_time = consumer.offsets_for_times(asked.clone(), PATIENCE)?;
    let is_begin = by_time
        .elements()
        .iter()
        .all(|each| each.offset() == Offset::Offset(0));
    expect(is_begin, format!("offsets by time: {by_time:?}"))?;
    let known = consumer.committed_offsets(asked, PATIENCE)?;
    let sum: i64 = known
        .elements()
        .iter()
        .map(|each| each.offset().to_raw().unwrap_or(0))
        .sum();
    expect(
        sum == count as i64,
        format!("{sum} committed of {count}: {known:?}"),
    )
}
