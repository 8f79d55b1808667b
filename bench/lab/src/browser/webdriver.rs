//! The few requests of W3C WebDriver that the lab needs, to a chromedriver in a namespace.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::namespace::Namespace;

/// Longer than any script of ours.
const PATIENCE: Duration = Duration::from_secs(130);

/// A session: one browser.
#[derive(Debug)]
pub(crate) struct Session {
    namespace: Namespace,
    driver: SocketAddr,
    id: String,
}

impl Session {
    /// Starts a browser.
    pub(crate) fn open(
        namespace: &Namespace,
        driver: SocketAddr,
        capabilities: &Value,
    ) -> anyhow::Result<Self> {
        let body = json!({ "capabilities": { "alwaysMatch": capabilities } });
        let value = request(namespace, driver, "POST", "/session", Some(&body))?;
        let id = value["sessionId"].as_str().context("a session without id")?.to_owned();
        let session = Self { namespace: namespace.clone(), driver, id };
        session.post("timeouts", &json!({ "script": 120_000, "pageLoad": 20_000 }))?;
        Ok(session)
    }

    fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        request(&self.namespace, self.driver, "POST", &format!("/session/{}/{path}", self.id), Some(body))
    }

    pub(crate) fn go(&self, url: &str) -> anyhow::Result<()> {
        self.post("url", &json!({ "url": url })).map(|_| ())
    }

    /// Runs `lab.FUNCTION(ARGUMENT)` of the page and waits for its promise.
    pub(crate) fn call(&self, function: &str, argument: &Value) -> anyhow::Result<Value> {
        let script = format!(
            "const done = arguments[1]; \
             lab.{function}(arguments[0]).then(value => done({{ value }}), error => done({{ error: String(error) }}));"
        );
        let body = json!({ "script": script, "args": [argument] });
        let mut outcome = self.post("execute/async", &body).with_context(|| function.to_owned())?;
        if let Some(error) = outcome["error"].as_str() {
            bail!("{function}: {error}");
        }
        Ok(outcome["value"].take())
    }

    /// Runs an asynchronous script with one argument and what it calls at its end.
    pub(crate) fn run(&self, script: &str, argument: &Value) -> anyhow::Result<Value> {
        self.post("execute/async", &json!({ "script": script, "args": [argument] }))
    }

    /// What it shows: a PNG in base64.
    pub(crate) fn picture(&self) -> anyhow::Result<String> {
        let path = format!("/session/{}/screenshot", self.id);
        let shown = request(&self.namespace, self.driver, "GET", &path, None)?;
        Ok(shown.as_str().context("no picture")?.to_owned())
    }

    /// Ends the browser.
    pub(crate) fn close(&self) -> anyhow::Result<()> {
        request(&self.namespace, self.driver, "DELETE", &format!("/session/{}", self.id), None).map(|_| ())
    }
}

/// Whether a driver takes sessions.
pub(crate) fn is_ready(namespace: &Namespace, driver: SocketAddr) -> bool {
    request(namespace, driver, "GET", "/status", None).is_ok_and(|status| status["ready"] == true)
}

fn request(
    namespace: &Namespace,
    driver: SocketAddr,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> anyhow::Result<Value> {
    let url = format!("http://{driver}{path}");
    let mut answer = namespace.within(|| -> anyhow::Result<Value> {
        let config = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).http_status_as_error(false);
        let agent: ureq::Agent = config.build().into();
        let mut response = match (method, body) {
            ("GET", _) => agent.get(&url).call()?,
            ("DELETE", _) => agent.delete(&url).call()?,
            (_, body) => {
                let text = body.map(Value::to_string).unwrap_or_default();
                agent.post(&url).header("Content-Type", "application/json").send(text)?
            }
        };
        // A recording of minutes is larger than the client's usual limit.
        let text = response.body_mut().with_config().limit(256 << 20).read_to_string()?;
        Ok(serde_json::from_str(&text)?)
    })??;
    if let Some(error) = answer["value"]["error"].as_str() {
        let message = answer["value"]["message"].as_str().unwrap_or_default();
        bail!("the browser says: {error}: {}", message.lines().next().unwrap_or_default());
    }
    Ok(answer["value"].take())
}
