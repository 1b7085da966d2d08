//! A DynamoDB engine and the proxy in front of AWS, for a test of the functions over the network.

use super::aws::{Aws, Call, Fault};
use super::dynamodb::DynamoDb;

pub struct World {
    pub dynamodb: DynamoDb,
    pub aws: Aws,
}

impl World {
    pub async fn new() -> Self {
        Self::with_fate(|_, _| None).await
    }

    /// Returns a world in which `fate` chooses the fault of each call to AWS.
    pub async fn with_fate(fate: impl Fn(&Call, usize) -> Option<Fault> + Send + Sync + 'static) -> Self {
        let dynamodb = DynamoDb::start().await;
        let aws = Aws::with_fate(&dynamodb.url, fate).await;
        Self { dynamodb, aws }
    }
}
