//! A function as Lambda runs it: several processes with one event each. A new process replaces each
//! process that died.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Semaphore;

use super::aws::Aws;
use super::lambda::{Lambda, Said, environment};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    Webhook,
    Redrive,
    Reconcile,
}

pub struct Fleet {
    function: Function,
    aws: Aws,
    timeout: Duration,
    more: Vec<(&'static str, String)>,
    idle: Mutex<Vec<Lambda>>,
    places: Semaphore,
    killed: Mutex<HashSet<String>>,
}

impl Fleet {
    /// Returns a function with up to `size` processes, whose invocations have this timeout.
    pub fn new(function: Function, size: usize, aws: &Aws, timeout: Duration) -> Self {
        Self {
            function,
            aws: aws.clone(),
            timeout,
            more: Vec::new(),
            idle: Mutex::default(),
            places: Semaphore::new(size),
            killed: Mutex::default(),
        }
    }

    /// Adds variables to the environment of each process.
    pub fn with(self, more: Vec<(&'static str, String)>) -> Self {
        Self { more, ..self }
    }

    /// Sends an event to one of the processes. Kills the process at its timeout, or after `life` if
    /// that is shorter.
    pub async fn invoke(&self, payload: &Value, life: Duration) -> Said {
        let _place = self.places.acquire().await.unwrap();
        let idle = self.idle.lock().unwrap().pop();
        let mut lambda = match (idle, self.function) {
            (Some(lambda), _) => lambda,
            (None, Function::Webhook) => {
                Lambda::start([environment(&self.aws), self.more.clone()].concat(), self.timeout).await
            }
            (None, Function::Redrive) => Lambda::start_redrive_with(&self.aws, self.more.clone(), self.timeout).await,
            (None, Function::Reconcile) => {
                Lambda::start_reconcile([environment(&self.aws), self.more.clone()].concat(), self.timeout).await
            }
        };
        let said = lambda.invoke_for(life.min(self.timeout), payload).await;
        match said {
            Said::Nothing => drop(self.killed.lock().unwrap().insert(lambda.request_id.clone())),
            _ => self.idle.lock().unwrap().push(lambda),
        }
        said
    }

    /// Returns the request ids of the killed invocations.
    pub fn killed(&self) -> HashSet<String> {
        self.killed.lock().unwrap().clone()
    }
}
