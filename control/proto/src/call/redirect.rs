//! A call that is sent elsewhere by 3xx (RFC 3261 section 8.1.3.4), where the configuration follows.

use super::Call;
use super::inside::Line;
use super::referral::callable;
use crate::sip::Response;
use crate::sip::header::uri_of;

/// Times that one call is sent elsewhere.
const REDIRECTS: usize = 5;

impl Call {
    /// Whether the INVITE is to be sent anew, to the first target that it was not sent to yet. It goes by the configured
    /// server: who answers does not decide which hosts hear of us.
    pub(super) fn redirected(&mut self, line: Line, response: &Response) -> bool {
        if !self.settings.sip.policy.follow_redirects {
            return false;
        }
        let Some(calling) = self.calling(line) else { return false };
        let contacts = response.contact.as_deref().unwrap_or_default();
        let mut targets = contacts.split(',').filter_map(|one| callable(uri_of(one)));
        let current = calling.dialog.target.clone();
        let fresh = targets.find(|uri| *uri != current && !calling.visited.iter().any(|seen| seen == uri));
        let Some(target) = fresh.filter(|_| calling.visited.len() < REDIRECTS) else { return false };
        calling.visited.push(current);
        target.clone_into(&mut calling.dialog.target);
        true
    }
}
