//! A real DynamoDB engine on a loopback port. Each test gets a database with the table of
//! `template.yaml`.

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, GlobalSecondaryIndex, KeySchemaElement, Projection,
};
use opportunity_alerts::delivery::ledger::dynamodb::DynamoDbLedger;
use opportunity_alerts::message::key::{DeliveryId, ReplyKey};
use tokio::net::TcpListener;
use yaml_serde::Value;

use super::template;

pub const TABLE: &str = "deliveries";

pub type Item = HashMap<String, AttributeValue>;

pub struct DynamoDb {
    pub url: String,
    pub client: Client,
}

impl DynamoDb {
    pub async fn start() -> Self {
        Self::serving(dynoxide::Database::memory().unwrap()).await
    }

    /// Starts an engine over a database that the test can also access directly.
    pub async fn serving(database: dynoxide::Database) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(dynoxide::server::serve_on(listener, database));
        let client = client(&url);
        create_table(&client).await;
        Self { url, client }
    }

    pub fn ledger(&self) -> DynamoDbLedger {
        DynamoDbLedger::new(self.client.clone(), TABLE.into())
    }

    pub async fn row(&self, id: &DeliveryId) -> Option<Item> {
        self.row_of(id.as_str()).await
    }

    /// Returns the row of a lead's last reply.
    pub async fn reply(&self, key: &ReplyKey) -> Option<Item> {
        self.row_of(key.as_str()).await
    }

    async fn row_of(&self, key: &str) -> Option<Item> {
        let key = AttributeValue::S(key.into());
        let get = self.client.get_item().table_name(TABLE).key("deliveryId", key).consistent_read(true);
        get.send().await.unwrap().item
    }

    pub async fn put(&self, item: Item) {
        self.client.put_item().table_name(TABLE).set_item(Some(item)).send().await.unwrap();
    }

    /// Deletes a row.
    pub async fn delete(&self, key: &str) {
        let key = AttributeValue::S(key.into());
        self.client.delete_item().table_name(TABLE).key("deliveryId", key).send().await.unwrap();
    }

    pub async fn rows(&self) -> Vec<Item> {
        let pages = self.client.scan().table_name(TABLE).into_paginator().items();
        pages.send().collect::<Result<_, _>>().await.unwrap()
    }

    /// Returns the rows in the sparse index.
    pub async fn pending(&self) -> Vec<Item> {
        self.client.scan().table_name(TABLE).index_name("pending").send().await.unwrap().items.unwrap_or_default()
    }
}

fn client(url: &str) -> Client {
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::for_tests())
        .endpoint_url(url)
        .build();
    Client::from_conf(config)
}

async fn create_table(client: &Client) {
    let table = &template::resource("DeliveriesTable")["Properties"];
    let index = &table["GlobalSecondaryIndexes"][0];
    let projection = Projection::builder()
        .projection_type(text(&index["Projection"]["ProjectionType"]).as_str().into())
        .set_non_key_attributes(
            index["Projection"]["NonKeyAttributes"].as_sequence().map(|names| names.iter().map(text).collect()),
        );
    let index = GlobalSecondaryIndex::builder()
        .index_name(text(&index["IndexName"]))
        .set_key_schema(Some(keys(&index["KeySchema"])))
        .projection(projection.build());
    let attributes = table["AttributeDefinitions"].as_sequence().unwrap().iter().map(|attribute| {
        AttributeDefinition::builder()
            .attribute_name(text(&attribute["AttributeName"]))
            .attribute_type(text(&attribute["AttributeType"]).as_str().into())
            .build()
            .unwrap()
    });
    let create = client
        .create_table()
        .table_name(TABLE)
        .billing_mode(BillingMode::PayPerRequest)
        .set_attribute_definitions(Some(attributes.collect()))
        .set_key_schema(Some(keys(&table["KeySchema"])))
        .global_secondary_indexes(index.build().unwrap());
    create.send().await.unwrap();
}

fn keys(schema: &Value) -> Vec<KeySchemaElement> {
    let key = |key: &Value| {
        let element = KeySchemaElement::builder().attribute_name(text(&key["AttributeName"]));
        element.key_type(text(&key["KeyType"]).as_str().into()).build().unwrap()
    };
    schema.as_sequence().unwrap().iter().map(key).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}
