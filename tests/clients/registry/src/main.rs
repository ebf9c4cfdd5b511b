//! crabka's schema registry, as its own program starts it: `kraft-registry BOOTSTRAP HOST:PORT`, where it listens.

use crabka_schema_registry::config::{RegistryConfig, SecurityConfig};
use crabka_schema_registry::election::Election;
use crabka_schema_registry::kafkastore::KafkaStore;
use crabka_schema_registry::rest::{forward::ForwardState, router_with_forwarding, serve::serve_http, AppState};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let url = format!("http://{}", arguments[2]);
    let config = RegistryConfig {
        bootstrap: arguments[1].clone(),
        schemas_topic: "_schemas".into(),
        schemas_topic_rf: 3,
        client_id: format!("registry-{}", arguments[2]),
        advertised_url: url.clone(),
        group_id: "schema-registry".into(),
        leader_eligibility: true,
        security: SecurityConfig::default(),
    };
    let shutdown = CancellationToken::new();
    let store = KafkaStore::start(&config, shutdown.clone()).await?;
    let primary = Election::start(&config, shutdown.clone()).await?;
    let forward = ForwardState { primary, http: reqwest::Client::new(), node_id: url };
    let listener = tokio::net::TcpListener::bind(&arguments[2]).await?;
    println!("listens at {}", listener.local_addr()?);
    serve_http(listener, router_with_forwarding(AppState { store }, forward), shutdown).await?;
    Ok(())
}
