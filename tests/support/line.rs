//! The line between a function and an AWS service: TLS, cut or silenced when a test asks for it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use testkit::tls::Certificate;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast::{self, Sender};

use super::aws::Aws;

pub struct Line {
    pub url: String,
    certificate: Certificate,
    opened: Arc<AtomicUsize>,
    fates: Sender<Fate>,
}

/// What befalls the connections that are open.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Cut,
    /// Nobody hears of the end: what is sent is lost.
    Silence,
}

impl Line {
    pub async fn to(aws: &Aws) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}/line", listener.local_addr().unwrap().port());
        let front = aws.url.strip_prefix("http://").unwrap().to_owned();
        let certificate = Certificate::new(1).unwrap();
        let acceptor = certificate.acceptor();
        let opened = Arc::new(AtomicUsize::new(0));
        let (fates, _) = broadcast::channel(1);
        let line = Self { url, certificate, opened: opened.clone(), fates: fates.clone() };
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let (acceptor, front, opened, mut fates) =
                    (acceptor.clone(), front.clone(), opened.clone(), fates.subscribe());
                tokio::spawn(async move {
                    let Ok(mut client) = acceptor.accept(client).await else { return };
                    opened.fetch_add(1, Ordering::Relaxed);
                    let mut server = TcpStream::connect(front).await.unwrap();
                    tokio::select! {
                        // Either end may go.
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        fate = fates.recv() => if let Ok(Fate::Silence) = fate { std::future::pending().await },
                    }
                });
            }
        });
        line
    }

    /// The file of roots that a function must trust.
    pub fn trusted(&self) -> &Path {
        self.certificate.roots()
    }

    /// How many connections there have been.
    pub fn opened(&self) -> usize {
        self.opened.load(Ordering::Relaxed)
    }

    /// Waits until there have been so many.
    pub async fn opens(&self, connections: usize) {
        let opened = async {
            while self.opened() < connections {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), opened).await.expect("a connection");
    }

    /// Ends the connections that are open.
    pub async fn cut(&self) {
        self.befalls(Fate::Cut).await;
    }

    /// Lets the connections that are open go silent.
    pub async fn silence(&self) {
        self.befalls(Fate::Silence).await;
    }

    async fn befalls(&self, fate: Fate) {
        self.fates.send(fate).unwrap();
        // Until it has reached them.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
