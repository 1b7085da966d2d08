//! HTTP/1.1 as a server speaks it, for whoever has something to answer: each connection is kept alive.

use std::future::Future;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// What a handler says.
pub(crate) type Answer = Response<Full<Bytes>>;

/// Answers the requests of one connection until the peer closes it.
pub(crate) async fn serve<S, H, F>(stream: S, handler: H)
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
    // A function that is killed breaks its connections.
    http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
}

/// An answer with this content.
pub(crate) fn answer(status: u16, content_type: &str, content: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(content.into()));
    *answer.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
    if let Ok(content_type) = content_type.parse() {
        answer.headers_mut().insert(hyper::header::CONTENT_TYPE, content_type);
    }
    answer
}
