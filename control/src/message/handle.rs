//! How others ask the owner of the calls.

use super::*;
use crate::random;

/// Asks the owner of the calls.
#[derive(Debug, Clone)]
pub struct Handle(pub mpsc::UnboundedSender<Message>);

impl Handle {
    /// Sends a message; whether anybody listens.
    pub fn tell(&self, message: Message) -> bool {
        self.0.send(message).is_ok()
    }

    async fn ask<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.tell(message(reply)).then_some(())?;
        answer.await.ok()
    }

    /// Begins a call and waits for its answer. Dropping the future before it is ready abandons the call, whatever has
    /// become of it: its name is ours, so there is no moment at which nobody knows it.
    ///
    /// # Errors
    /// [`CreateError`].
    pub async fn create(&self, wish: Wish) -> Result<Created, CreateError> {
        self.create_as(Self::name(), wish).await
    }

    /// A name for a call to come, for those who have to know it before the answer; see [`Handle::create_as`].
    pub fn name() -> CallId {
        CallId(u128::from_be_bytes(random::octets()))
    }

    /// As [`Handle::create`], under a name of [`Handle::name`].
    ///
    /// # Errors
    /// [`CreateError`].
    pub async fn create_as(&self, id: CallId, wish: Wish) -> Result<Created, CreateError> {
        let (reply, answer) = oneshot::channel();
        let mut guard = Abandon { handle: self.clone(), id: Some(id) };
        let told = self.tell(Message::Create { id, wish, reply });
        let outcome = if told { answer.await.ok() } else { None };
        guard.id = None;
        outcome.unwrap_or(Err(CreateError::Draining))
    }

    /// Signs a browser in.
    ///
    /// # Errors
    /// [`SignInError`].
    pub async fn sign_in(&self, sign_in: SignIn) -> Result<SignedIn, SignInError> {
        let told = self.ask(|reply| Message::SignIn { sign_in, reply }).await;
        told.unwrap_or(Err(SignInError::Draining))
    }

    /// Gives a browser that is signed in another token's time and reach.
    ///
    /// # Errors
    /// [`RenewError`].
    pub async fn renew(&self, session: SessionId, renewal: Renewal) -> Result<(), RenewError> {
        let told = self.ask(|reply| Message::Renew { session, renewal, reply }).await;
        told.unwrap_or(Err(RenewError::Unknown))
    }

    /// Makes a call of a former control a browser's again: it belongs to nobody since. One that the browser had placed is
    /// known by its name, a secret; one that it had taken must be its number's as well.
    ///
    /// # Errors
    /// [`CallError::Unknown`]: it is no such call.
    pub async fn claim(&self, id: CallId, session: SessionId) -> Result<(), CallError> {
        self.ask(|reply| Message::Claim { id, session, reply }).await.unwrap_or(Err(CallError::Unknown))
    }

    /// Whether a browser is signed in under this name.
    pub async fn is_signed_in(&self, session: SessionId) -> bool {
        self.ask(|reply| Message::IsSignedIn { session, reply }).await.unwrap_or(false)
    }

    /// Whether a browser may call `to`: [`Self::create`] asks by itself, a transfer of a call that nobody owns does not.
    ///
    /// # Errors
    /// [`CreateError::Forbidden`] and [`CreateError::UnknownSession`].
    pub async fn may_call(&self, session: SessionId, to: String) -> Result<(), CreateError> {
        let told = self.ask(|reply| Message::MayCall { session, to, reply }).await;
        told.unwrap_or(Err(CreateError::Draining))
    }

    /// Whether somebody may ask something of a call: to be asked before [`Self::renegotiate`], [`Self::act`],
    /// [`Self::trickle`], [`Self::hang_up`], [`Self::show`] and [`Self::watch`]. A call belongs to the browser that placed
    /// or took it while it was signed in; a call that was placed without is known by its name, which is a secret.
    ///
    /// # Errors
    /// [`CallError::Unknown`]: whose it is not hears no more than that.
    pub async fn may(&self, id: CallId, by: By) -> Result<(), CallError> {
        self.ask(|reply| Message::May { id, by, reply }).await.unwrap_or(Err(CallError::Unknown))
    }

    /// Takes a call that rings at a browser. Dropping the future before it is ready abandons the call.
    ///
    /// # Errors
    /// [`CreateError`]; with [`CreateError::Offer`] the call rings on.
    pub async fn accept(&self, id: CallId, offer: String, caller: Caller) -> Result<Created, CreateError> {
        let told = self.ask(|reply| Message::Accept { id, offer, caller, reply }).await;
        told.unwrap_or(Err(CreateError::Draining))
    }

    /// Our offer to a browser that a call rings at; [`Self::take`] brings its answer.
    ///
    /// # Errors
    /// [`CallError::Unknown`] where it does not ring there.
    pub async fn offer(&self, id: CallId, caller: Caller) -> Result<String, CallError> {
        self.ask(|reply| Message::Offer { id, caller, reply }).await.unwrap_or(Err(CallError::Unknown))
    }

    /// Takes a call that rings at a browser by its answer to our offer. Dropping the future before it is ready abandons
    /// the call.
    ///
    /// # Errors
    /// [`CreateError`]; with [`CreateError::Offer`] the call rings on.
    pub async fn take(&self, id: CallId, answer: String, caller: Caller) -> Result<(), CreateError> {
        let told = self.ask(|reply| Message::Take { id, answer, caller, reply }).await;
        told.unwrap_or(Err(CreateError::Draining)).map(|_| ())
    }

    /// A browser does not want a call that rings there.
    ///
    /// # Errors
    /// [`CallError::Unknown`].
    pub async fn decline(&self, id: CallId, session: SessionId, status: u16) -> Result<(), CallError> {
        let told = self.ask(|reply| Message::Decline { id, session, status, reply }).await;
        told.unwrap_or(Err(CallError::Unknown))
    }

    /// The answer to another offer of the browser.
    ///
    /// # Errors
    /// [`CreateError`]; nothing has changed then.
    pub async fn renegotiate(&self, id: CallId, offer: String) -> Result<String, CreateError> {
        let told = self.ask(|reply| Message::Renegotiate { id, offer, reply }).await;
        told.unwrap_or(Err(CreateError::Gone))
    }

    /// Has a call send digits or user data, transfer its far end, or be recorded.
    ///
    /// # Errors
    /// [`CallError::Unknown`]; of a recording also [`CallError::NotRecordable`] and [`CallError::NoRecorder`].
    pub async fn act(&self, id: CallId, input: Input) -> Result<(), CallError> {
        self.ask(|reply| Message::Act { id, input, reply }).await.unwrap_or(Err(CallError::Unknown))
    }

    /// Transfers the far end of a call onto that of another of the same browser.
    ///
    /// # Errors
    /// [`CallError::Unknown`].
    pub async fn transfer_onto(&self, id: CallId, other: CallId) -> Result<(), CallError> {
        let told = self.ask(|reply| Message::TransferOnto { id, other, reply }).await;
        told.unwrap_or(Err(CallError::Unknown))
    }

    /// More candidates of the browser.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn trickle(&self, id: CallId, fragment: String) -> Result<(), CallError> {
        self.ask(|reply| Message::Trickle { id, fragment, reply }).await.unwrap_or(Err(CallError::Unknown))
    }

    /// Hangs up.
    ///
    /// # Errors
    /// [`CallError::Unknown`].
    pub async fn hang_up(&self, id: CallId) -> Result<(), CallError> {
        self.ask(|reply| Message::HangUp { id, reply }).await.unwrap_or(Err(CallError::Unknown))
    }

    /// One call with its statistics.
    ///
    /// # Errors
    /// [`CallError::Unknown`].
    pub async fn show(&self, id: CallId) -> Result<Shown, CallError> {
        self.ask(|reply| Message::Show { id, reply }).await.unwrap_or(Err(CallError::Unknown))
    }

    /// All calls.
    pub async fn list(&self) -> Vec<CallView> {
        self.ask(Message::List).await.unwrap_or_default()
    }

    /// Events of one call: those so far, and those to come.
    ///
    /// # Errors
    /// [`CallError::Unknown`].
    pub async fn watch(&self, id: CallId) -> Result<Watched, CallError> {
        self.ask(|reply| Message::Watch { id, reply }).await.unwrap_or(Err(CallError::Unknown))
    }

    /// State of control and relay; `None` when we are on our way down.
    pub async fn overview(&self) -> Option<Overview> {
        self.ask(Message::Overview).await
    }

    /// Hangs up all calls and waits until none is left.
    pub async fn drain(&self) {
        let _ = self.ask(Message::Drain).await;
    }

    /// Hangs up the calls that another control could not go on with and waits until none of them is left.
    pub async fn leave(&self) {
        let _ = self.ask(Message::Leave).await;
    }
}

/// Abandons a call whose answer nobody has read.
struct Abandon {
    handle: Handle,
    id: Option<CallId>,
}

impl Drop for Abandon {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.handle.tell(Message::Abandon(id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    fn begun() -> (Handle, mpsc::UnboundedReceiver<Message>) {
        let (sender, inbox) = mpsc::unbounded_channel();
        (Handle(sender), inbox)
    }

    fn created(
        inbox: &mut mpsc::UnboundedReceiver<Message>,
    ) -> (CallId, oneshot::Sender<Result<Created, CreateError>>) {
        match inbox.try_recv() {
            Ok(Message::Create { id, reply, .. }) => (id, reply),
            other => panic!("{other:?}"),
        }
    }

    fn wish() -> Wish {
        let caller = Caller { client: None, zone: Zone::Outside, session: None };
        Wish { to: "1000".into(), offer: String::new(), caller, headers: Vec::new() }
    }

    #[test]
    fn a_client_that_goes_away_at_any_moment_abandons_its_call() {
        for answered in [false, true] {
            let (handle, mut inbox) = begun();
            let mut context = Context::from_waker(Waker::noop());
            let id = {
                let mut creating = pin!(handle.create(wish()));
                assert!(creating.as_mut().poll(&mut context).is_pending());
                let (id, reply) = created(&mut inbox);
                if answered {
                    // The answer lies ready, but nobody comes for it any more.
                    reply.send(Ok(Created { id, answer: String::new() })).unwrap();
                }
                id
            };
            assert!(
                matches!(inbox.try_recv(), Ok(Message::Abandon(abandoned)) if abandoned == id),
                "{answered}"
            );
        }
    }

    #[test]
    fn a_call_whose_answer_was_read_is_not_abandoned() {
        let (handle, mut inbox) = begun();
        let mut context = Context::from_waker(Waker::noop());
        let mut creating = Box::pin(handle.create(wish()));
        assert!(creating.as_mut().poll(&mut context).is_pending());
        let (id, reply) = created(&mut inbox);
        reply.send(Ok(Created { id, answer: "x".into() })).unwrap();
        let Poll::Ready(Ok(read)) = creating.as_mut().poll(&mut context) else { panic!("no answer") };
        assert_eq!((read.id, read.answer.as_str()), (id, "x"));
        drop(creating);
        assert!(inbox.try_recv().is_err());
    }
}
