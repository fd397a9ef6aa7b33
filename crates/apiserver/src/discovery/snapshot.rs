//! `/kobune/snapshot`: the whole state, secrets too, in the layout of `kobune snapshot save`. Only who may read every
//! path gets it: `cluster-admin` and `system:masters`.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::{Response, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::mpsc;

use crate::core::Core;
use crate::http::body::{Body, BoxError, response};

/// How many pieces wait for a slow reader; the writer pauses then.
const WAITING: usize = 8;

/// Streams a snapshot of this moment. A failure breaks the stream off, and the missing checksum shows it.
pub(super) fn answer(core: &Arc<Core>) -> Response<Body> {
    let (sender, receiver) = mpsc::channel::<Result<Frame<Bytes>, BoxError>>(WAITING);
    let store = core.cache.store().clone();
    tokio::spawn(async move {
        if let Err(error) = store.snapshot_to(Box::new(Pieces(sender.clone()))).await {
            tracing::warn!(%error, "a snapshot was not sent");
            // Nobody reads any more, or the reader learns why.
            let _gone = sender.send(Err(error.into())).await;
        }
    });
    let stream = futures::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|piece| (piece, receiver))
    });
    let mut answer = response(200, "application/octet-stream", Bytes::new());
    answer.headers_mut().remove(header::CONTENT_LENGTH);
    *answer.body_mut() = StreamBody::new(Box::pin(stream)).boxed_unsync();
    answer
}

/// What is written becomes pieces of the answer. Blocks, so it is for threads that may.
struct Pieces(mpsc::Sender<Result<Frame<Bytes>, BoxError>>);

impl io::Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Frame::data(Bytes::copy_from_slice(bytes));
        let sent = self.0.blocking_send(Ok(piece));
        sent.map(|()| bytes.len()).map_err(|_gone| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
