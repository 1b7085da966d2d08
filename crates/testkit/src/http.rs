//! An HTTP/1.1 server on a free loopback port, with or without TLS.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
pub use hyper::body::Bytes;
use hyper::body::{Body, Frame, Incoming};
pub use hyper::header::HeaderMap;
use hyper::header::{CONTENT_TYPE, HeaderValue};
pub use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// The answer to one request.
pub type Answer = Response<BoxBody<Bytes, io::Error>>;

/// A running server. A drop ends the server and its connections.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    _accepting: JoinSet<()>,
}

impl Server {
    /// Starts a server that answers each request with `handler`. Connections are kept alive.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn start<H, F>(tls: Option<TlsAcceptor>, handler: H) -> io::Result<Self>
    where
        H: Fn(Parts, Bytes) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Answer> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let connections = Arc::new(AtomicUsize::new(0));
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, tls, connections.clone(), handler));
        Ok(Self { address, connections, _accepting: accepting })
    }

    /// Returns the address of the server.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the number of connections so far. A connection counts after its TLS handshake.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn accept<H, F>(listener: TcpListener, tls: Option<TlsAcceptor>, connections: Arc<AtomicUsize>, handler: H)
where
    H: Fn(Parts, Bytes) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let mut open = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, connections, handler) = (tls.clone(), connections.clone(), handler.clone());
        open.spawn(async move {
            stream.set_nodelay(true).ok();
            match tls {
                Some(tls) => {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    connections.fetch_add(1, Ordering::Relaxed);
                    serve(stream, handler).await;
                }
                None => {
                    connections.fetch_add(1, Ordering::Relaxed);
                    serve(stream, handler).await;
                }
            }
        });
        while open.try_join_next().is_some() {}
    }
}

/// Answers the requests of one connection until the client closes it.
async fn serve<S, H, F>(stream: S, handler: H)
where
    S: AsyncRead + AsyncWrite + Unpin,
    H: Fn(Parts, Bytes) -> F,
    F: Future<Output = Answer>,
{
    let service = service_fn(|request: Request<Incoming>| async {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok::<_, hyper::Error>(handler(parts, body).await)
    });
    // If a function is killed, its connections break. So errors are normal here.
    http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
}

/// Returns an answer with this content.
pub fn answer(status: u16, content_type: &'static str, content: impl Into<Bytes>) -> Answer {
    let body = Full::new(content.into()).map_err(|never: Infallible| match never {});
    let mut answer = Response::new(body.boxed());
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// Returns an answer whose connection breaks in the middle of the content.
pub fn broken() -> Answer {
    Response::new(Broken.boxed())
}

struct Broken;

impl Body for Broken {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Poll::Ready(Some(Err(io::Error::other("the connection breaks"))))
    }
}
