//! What the owner of the calls is asked.

use std::time::Duration;

use sallyport_plan::CallId;
use sallyport_proto::ng::{BridgeTag, Request};
use tokio::sync::oneshot;

use crate::message::{CreateError, Created, Handle, Message};

/// A call, for those who ask.
#[derive(Debug, Clone)]
pub struct Described {
    /// Its name here.
    pub id: CallId,
    /// When it began, in milliseconds since the Unix epoch.
    pub created: u64,
    /// When its last request came, likewise.
    pub signalled: u64,
    /// Its sides, the one that made the first offer in front.
    pub tags: Vec<BridgeTag>,
}

/// A question.
#[derive(Debug)]
pub enum Ask {
    /// An offer or an answer.
    Media {
        /// With its SDP.
        request: Box<Request>,
        /// The SDP for the other side.
        reply: oneshot::Sender<Result<Created, CreateError>>,
    },
    /// Which calls a request means.
    Find {
        /// The request.
        request: Box<Request>,
        /// The calls.
        reply: oneshot::Sender<Vec<Described>>,
    },
    /// Ends calls.
    Delete {
        /// Which.
        calls: Vec<CallId>,
        /// When.
        delay: Duration,
        /// When it is done, or put off.
        reply: oneshot::Sender<()>,
    },
    /// Names of calls.
    List {
        /// How many at the most.
        limit: usize,
        /// Call-IDs.
        reply: oneshot::Sender<Vec<String>>,
    },
}

impl Handle {
    async fn ng<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.tell(Message::Ng(ask(reply))).then_some(())?;
        answer.await.ok()
    }

    /// An offer or an answer.
    ///
    /// # Errors
    /// [`CreateError`].
    pub async fn ng_media(&self, request: Request) -> Result<Created, CreateError> {
        let request = Box::new(request);
        self.ng(|reply| Ask::Media { request, reply }).await.unwrap_or(Err(CreateError::Draining))
    }

    /// Which calls a request means.
    pub async fn ng_find(&self, request: Request) -> Vec<Described> {
        let request = Box::new(request);
        self.ng(|reply| Ask::Find { request, reply }).await.unwrap_or_default()
    }

    /// Ends calls, at once or after a while.
    pub async fn ng_delete(&self, calls: Vec<CallId>, delay: Duration) {
        let _ = self.ng(|reply| Ask::Delete { calls, delay, reply }).await;
    }

    /// Call-IDs of calls.
    pub async fn ng_list(&self, limit: usize) -> Vec<String> {
        self.ng(|reply| Ask::List { limit, reply }).await.unwrap_or_default()
    }
}
