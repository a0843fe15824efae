//! A TCP proxy that cuts a connection between the server's commit and its answer.

use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    Cut,
    Silence,
}

/// The bytes to wait for, and what to do then.
type Marker = Arc<Mutex<Option<(Vec<u8>, Loss)>>>;

/// Forwards to a server until told to lose an answer.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) port: u16,
    marker: Marker,
    barred: Arc<Mutex<Vec<u8>>>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// `server` is `host:port`.
    pub(crate) async fn start(server: String) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let marker = Arc::new(Mutex::new(None));
        let barred = Arc::new(Mutex::new(Vec::new()));
        let accepting = tokio::spawn({
            let (marker, barred) = (Arc::clone(&marker), Arc::clone(&barred));
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    let (server, marker, barred) = (server.clone(), Arc::clone(&marker), Arc::clone(&barred));
                    tokio::spawn(async move {
                        if let Ok(server) = TcpStream::connect(server).await {
                            drop(forward(client, server, marker, barred).await);
                        }
                    });
                }
            }
        });
        Self { port, marker, barred, accepting }
    }

    /// The answer to the next message that holds these bytes is lost, and its connection with it. Once.
    pub(crate) fn lose_answer_to(&self, bytes: &str) {
        *self.marker.lock().unwrap() = Some((bytes.as_bytes().to_vec(), Loss::Cut));
    }

    /// The answer to the next message that holds these bytes never comes, and neither does anything else on its
    /// connection, which stays open. Once.
    pub(crate) fn silence_after(&self, bytes: &str) {
        *self.marker.lock().unwrap() = Some((bytes.as_bytes().to_vec(), Loss::Silence));
    }

    /// From now on every connection is cut instead of passing on a message that holds these bytes.
    pub(crate) fn bar(&self, bytes: &str) {
        *self.barred.lock().unwrap() = bytes.as_bytes().to_vec();
    }

    /// Whether the answer has been lost.
    pub(crate) fn has_lost(&self) -> bool {
        self.marker.lock().unwrap().is_none()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn forward(
    client: TcpStream,
    server: TcpStream,
    marker: Marker,
    barred: Arc<Mutex<Vec<u8>>>,
) -> std::io::Result<()> {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let (mut request, mut answer) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut lose = None;
    loop {
        tokio::select! {
            read = from_client.read(&mut request) => {
                let bytes = &request[..read?];
                if bytes.is_empty() {
                    return Ok(());
                }
                let barred = barred.lock().unwrap().clone();
                if !barred.is_empty() && bytes.windows(barred.len()).any(|window| window == barred) {
                    return Ok(());
                }
                let found = marker.lock().unwrap().take_if(|(marker, _)| {
                    bytes.windows(marker.len()).any(|window| window == marker.as_slice())
                });
                lose = lose.or(found.map(|(_, loss)| loss));
                to_server.write_all(bytes).await?;
            }
            read = from_server.read(&mut answer) => {
                let bytes = &answer[..read?];
                // The server answers when it has committed.
                match lose {
                    _ if bytes.is_empty() => return Ok(()),
                    Some(Loss::Cut) => return Ok(()),
                    Some(Loss::Silence) => {}
                    None => to_client.write_all(bytes).await?,
                }
            }
        }
    }
}
