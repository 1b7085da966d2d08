//! A TLS proxy between a function and an AWS service. A test can cut or mute its connections.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use testkit::tls::Certificate;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast::{self, Sender};

use super::aws::Aws;

pub struct TlsProxy {
    pub url: String,
    certificate: Certificate,
    opened: Arc<AtomicUsize>,
    faults: Sender<Fault>,
}

/// A fault of all open connections.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Cut,
    /// Data is lost, and neither side learns that the connection is dead.
    Mute,
}

impl TlsProxy {
    pub async fn to(aws: &Aws) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}/tls", listener.local_addr().unwrap().port());
        let aws = aws.url.strip_prefix("http://").unwrap().to_owned();
        let certificate = Certificate::new(1).unwrap();
        let acceptor = certificate.acceptor();
        let opened = Arc::new(AtomicUsize::new(0));
        let (faults, _) = broadcast::channel(1);
        let proxy = Self { url, certificate, opened: opened.clone(), faults: faults.clone() };
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let (acceptor, aws, opened, mut faults) =
                    (acceptor.clone(), aws.clone(), opened.clone(), faults.subscribe());
                tokio::spawn(async move {
                    let Ok(mut client) = acceptor.accept(client).await else { return };
                    opened.fetch_add(1, Ordering::Relaxed);
                    let mut server = TcpStream::connect(aws).await.unwrap();
                    tokio::select! {
                        // Either side may end the connection.
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        fault = faults.recv() => if let Ok(Fault::Mute) = fault { std::future::pending().await },
                    }
                });
            }
        });
        proxy
    }

    /// Returns the file of root certificates that a function must trust.
    pub fn trusted(&self) -> &Path {
        self.certificate.roots()
    }

    /// Returns the number of connections since the start.
    pub fn opened(&self) -> usize {
        self.opened.load(Ordering::Relaxed)
    }

    /// Waits until this number of connections has been opened.
    pub async fn opens(&self, connections: usize) {
        let opened = async {
            while self.opened() < connections {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), opened).await.expect("the function should open a connection");
    }

    /// Ends all open connections.
    pub async fn cut(&self) {
        self.inject(Fault::Cut).await;
    }

    /// Makes all open connections lose all data, without ending them.
    pub async fn mute(&self) {
        self.inject(Fault::Mute).await;
    }

    async fn inject(&self, fault: Fault) {
        self.faults.send(fault).unwrap();
        // The connections need a moment to receive the fault.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
