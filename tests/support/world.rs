//! What a test of the functions over the wire needs: a real DynamoDB engine, and the front before it and SNS.

use super::aws::Aws;
use super::dynamodb::DynamoDb;

pub struct World {
    pub dynamodb: DynamoDb,
    pub aws: Aws,
}

impl World {
    pub async fn new() -> Self {
        let dynamodb = DynamoDb::start().await;
        let aws = Aws::before(&dynamodb.url).await;
        Self { dynamodb, aws }
    }
}
