//! Who is let in, and as whom.

use sallyport_proto::Party;
use sallyport_proto::gateway::{Refusal, Secret};

use crate::config::Config;
use crate::message::SignIn;

/// What the configuration allows.
#[derive(Debug)]
pub struct Door {
    tokens: Vec<String>,
    anonymous: Vec<String>,
}

impl Door {
    /// From `[http]`.
    pub fn new(config: &Config) -> Self {
        Self { tokens: config.http.tokens.clone(), anonymous: config.http.anonymous.clone() }
    }

    fn knows(&self, token: Option<&Secret>) -> bool {
        // Every token is compared to its end, whatever the others were.
        token.is_some_and(|Secret(given)| {
            self.tokens.iter().fold(false, |known, have| known | same(have.as_bytes(), given.as_bytes()))
        })
    }

    /// Judges a sign-in.
    ///
    /// # Errors
    /// What the browser is told.
    pub fn admit(&self, number: Option<&str>, token: Option<&Secret>) -> Result<SignIn, Refusal> {
        match number {
            Some(_) if !self.knows(token) => {
                Err(Refusal::because(401, "an agent signs in with a bearer token"))
            }
            Some(number) => Ok(SignIn { party: Some(Party { user: number.to_owned(), ..Party::default() }) }),
            None => Ok(SignIn { party: None }),
        }
    }

    /// Whether this may be called; whether it is by a token.
    ///
    /// # Errors
    /// What the browser is told.
    pub fn may_call(&self, token: Option<&Secret>, to: &str) -> Result<bool, Refusal> {
        if self.knows(token) {
            return Ok(true);
        }
        let open = self.anonymous.iter().any(|open| open == "*" || open == to);
        if open { Ok(false) } else { Err(Refusal::because(401, "this destination needs a bearer token")) }
    }
}

/// Compares in a time that depends on the lengths only.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differing, (a, b)| differing | (a ^ b)) == 0
}
