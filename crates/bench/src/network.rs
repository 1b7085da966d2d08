//! Simulates a network between a function and a server on this machine. Every byte arrives half a
//! round trip after it was sent.
//!
//! A connect takes a round trip too. The kernel connects at once, so the client's first bytes are
//! delayed instead. A TLS handshake and a request then take as long as over a network with this
//! round trip and unlimited bandwidth.
//!
//! The network runs in threads, because tokio's timer has a resolution of a millisecond.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::channel;
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

/// Puts a network in front of `server`, and returns its address. The network runs until this
/// process ends.
pub(crate) fn relay(server: SocketAddr, round_trip: Duration) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    spawn(move || {
        for client in listener.incoming().flatten() {
            // If there is an error, the client has disconnected already.
            connect(client, server, round_trip).ok();
        }
    });
    Ok(address)
}

fn connect(client: TcpStream, server: SocketAddr, round_trip: Duration) -> io::Result<()> {
    let connected_at = Instant::now() + round_trip;
    let server = TcpStream::connect(server)?;
    carry(client.try_clone()?, server.try_clone()?, round_trip / 2, connected_at)?;
    carry(server, client, round_trip / 2, connected_at)
}

/// Carries bytes `from` one end `to` the other, with the delay `takes`. No byte is sent before
/// `connected_at`.
fn carry(mut from: TcpStream, mut to: TcpStream, takes: Duration, connected_at: Instant) -> io::Result<()> {
    to.set_nodelay(true)?;
    let (send, arrive) = channel::<(Instant, Vec<u8>)>();
    spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            let sent_at = Instant::now().max(connected_at);
            if send.send((sent_at + takes, buffer[..length].into())).is_err() {
                return;
            }
        }
    });
    spawn(move || {
        for (arrives_at, bytes) in arrive {
            sleep(arrives_at.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                return;
            }
        }
        to.shutdown(Shutdown::Write).ok();
    });
    Ok(())
}
