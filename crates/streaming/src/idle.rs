//! A connection that fails when nothing was read or written for some time.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// See the module's documentation. Only a pending read notices the silence, and there is always one.
pub struct IdleTimeout<T> {
    inner: T,
    limit: Duration,
    last: Instant,
    timer: Pin<Box<Sleep>>,
}

impl<T> IdleTimeout<T> {
    pub fn new(inner: T, limit: Duration) -> Self {
        Self { inner, limit, last: Instant::now(), timer: Box::pin(sleep(limit)) }
    }

    /// Ready when the silence has lasted too long.
    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.timer.as_mut().poll(context));
            let end = self.last + self.limit;
            if Instant::now() >= end {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(end);
        }
    }

    fn noted<R>(&mut self, poll: Poll<R>) -> Poll<R> {
        if poll.is_ready() {
            self.last = Instant::now();
        }
        poll
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for IdleTimeout<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.inner).poll_read(context, into);
        if read.is_pending() && self.poll_silence(context).is_ready() {
            let text = "the connection was idle for too long";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, text)));
        }
        self.noted(read)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for IdleTimeout<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.noted(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_ends_a_connection_and_traffic_keeps_it() {
        let (mut peer, near) = duplex(64);
        let mut near = IdleTimeout::new(near, Duration::from_secs(10));
        let start = Instant::now();
        let talking = async move {
            tokio::time::sleep(Duration::from_secs(8)).await;
            peer.write_all(b"x").await.unwrap();
            std::future::pending::<()>().await;
        };
        let reading = async {
            assert_eq!(near.read_u8().await.unwrap(), b'x');
            near.read_u8().await.unwrap_err()
        };
        let error = tokio::select! { error = reading => error, () = talking => unreachable!() };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed().as_secs(), 18);
    }
}
