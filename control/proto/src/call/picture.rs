//! Wishes for a whole picture that go or come by INFO (RFC 5168), as old video phones have them in place of RTCP's.

use std::time::{Duration, Instant};

use sallyport_plan::DirectionIndex;

use super::Call;
use super::plan::VIDEO_INWARD;
use super::requests::Purpose;
use crate::api::Command;
use crate::sip::Request;

/// Type of such a body.
pub(super) const MEDIA_CONTROL: &str = "application/media_control+xml";
/// The wish, as a body has it.
const WISH: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\r\n<media_control><vc_primitive><to_encoder>\
    <picture_fast_update/></to_encoder></vc_primitive></media_control>\r\n";
/// Between two wishes of ours.
const APART: Duration = Duration::from_secs(1);

/// What is known of such wishes of ours.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    last: Option<Instant>,
    /// The far end does not know them.
    refused: bool,
}

/// Whether a body of that type wishes for a picture.
pub(super) fn is_wish(request: &Request, kind: &str) -> bool {
    let text = std::str::from_utf8(&request.body).unwrap_or_default();
    kind.eq_ignore_ascii_case(MEDIA_CONTROL) && text.contains("<picture_fast_update")
}

impl Call {
    /// The far end wishes for a picture: the browser is asked by RTCP, where there is one to ask.
    pub(super) fn wished(&mut self) {
        if self.cause.is_none() && self.video.film().is_some() {
            self.commands.push_back(Command::Picture { direction: VIDEO_INWARD });
        }
    }

    /// The relay passed a wish on by RTCP that came on this direction. A far end that has not said that it understands those is
    /// asked by INFO as well.
    pub(super) fn wishes(&mut self, direction: DirectionIndex, now: Instant) {
        let wishes = &self.inside.wishes;
        let soon = wishes.last.is_some_and(|last| now.saturating_duration_since(last) < APART);
        let deaf = self.video.hears_no_wishes() && !wishes.refused;
        if direction != VIDEO_INWARD || soon || !deaf || !self.can_inform() || self.is_asking(Purpose::Wish) {
            return;
        }
        self.inside.wishes.last = Some(now);
        self.send_info(Purpose::Wish, MEDIA_CONTROL, WISH.as_bytes().to_vec());
    }

    /// Such a wish of ours has its answer: who does not know them is not asked again.
    pub(super) fn wish_settled(&mut self, status: u16) {
        self.inside.wishes.refused |= status >= 300;
    }
}
