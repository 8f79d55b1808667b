//! `sallyport status` and `sallyport calls`: questions to the REST API.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::Value;

/// Options of the questions.
#[derive(Args)]
pub struct Options {
    /// Where the REST API is.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// Bearer token.
    #[arg(long, env = "SALLYPORT_TOKEN", hide_env_values = true)]
    token: String,
    /// The API's own JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// Options of `sallyport calls`.
#[derive(Args)]
pub struct CallsOptions {
    #[command(flatten)]
    options: Options,
    /// One call, with the quality of its media.
    #[arg(value_name = "CALL")]
    call: Option<String>,
}

/// Prints the state of the appliance.
///
/// # Errors
/// Where the API does not answer, or refuses.
pub fn status(options: &Options) -> anyhow::Result<ExitCode> {
    let status = ask(options, "/v1/status")?;
    if options.json {
        println!("{status}");
        return Ok(ExitCode::SUCCESS);
    }
    println!("sallyport {}, up {} s", text(&status["version"]), text(&status["uptime_s"]));
    println!(
        "calls: {} being set up, {} active",
        text(&status["calls"]["setup"]),
        text(&status["calls"]["active"])
    );
    if status["relay"]["connected"] == true {
        println!(
            "relay: {} workers, SRTP by {}",
            text(&status["relay"]["workers"]),
            text(&status["relay"]["srtp"])
        );
    } else {
        println!("relay: away");
    }
    for interface in status["relay"]["interfaces"].as_array().into_iter().flatten() {
        println!(
            "{:<8} {:<16} path {:<8} {} queues{}{}, UDP {} to {}{}{}",
            text(&interface["zone"]),
            text(&interface["name"]),
            text(&interface["path"]),
            text(&interface["queues"]),
            if interface["zero_copy"] == true { ", zero-copy" } else { "" },
            if interface["hashes_ports"] == true { ", spread by ports" } else { "" },
            text(&interface["port_min"]),
            text(&interface["port_max"]),
            interface["browsers"].as_u64().map(|port| format!(", browsers {port}")).unwrap_or_default(),
            interface["tcp"].as_u64().map(|port| format!(", TCP {port}")).unwrap_or_default(),
        );
    }
    let counters = status["relay"]["counters"].as_object().into_iter().flatten();
    for (name, value) in counters.filter(|(_, value)| value.as_u64() != Some(0)) {
        println!("{name:<36} {:>14}", text(value));
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints a line a call, or of one call a line a direction as well.
///
/// # Errors
/// Where the API does not answer, or refuses.
pub fn calls(CallsOptions { options, call }: &CallsOptions) -> anyhow::Result<ExitCode> {
    let path = call.as_ref().map_or_else(|| "/v1/calls".to_owned(), |call| format!("/v1/calls/{call}"));
    let answer = ask(options, &path)?;
    if options.json {
        println!("{answer}");
        return Ok(ExitCode::SUCCESS);
    }
    println!("{:<34} {:<12} to", "call", "state");
    let one = [answer];
    for call in one.iter().flat_map(|answer| answer.as_array().map_or(&one[..], Vec::as_slice)) {
        println!("{:<34} {:<12} {}", text(&call["id"]), text(&call["state"]), text(&call["to"]));
        for direction in call["media"]["directions"].as_array().into_iter().flatten() {
            println!("  {}", media(direction));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// One direction in a line.
fn media(direction: &Value) -> String {
    let quality = &direction["quality"];
    let told = [
        ("packets", &direction["packets"]),
        ("lost %", &quality["loss_percent"]),
        ("jitter ms", &quality["jitter_ms"]),
        ("round trip ms", &quality["round_trip_ms"]),
        ("MOS", &quality["mos"]),
        ("p99 in the relay us", &quality["stay"]["p99_us"]),
    ];
    let told = told.map(|(name, value)| format!("{name} {}", text(value)));
    format!("from {:<8} {}", text(&direction["from"]), told.join(", "))
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".into(),
        other => other.to_string(),
    }
}

fn ask(options: &Options, path: &str) -> anyhow::Result<Value> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(10)))
        .http_status_as_error(false)
        .build()
        .into();
    let url = format!("{}{path}", options.url.trim_end_matches('/'));
    let request = agent.get(&url).header("Authorization", format!("Bearer {}", options.token));
    let mut response = request.call().with_context(|| format!("{url} does not answer"))?;
    let body = response.body_mut().read_to_string().context("the answer cannot be read")?;
    if !response.status().is_success() {
        bail!("{url} answers {}: {body}", response.status());
    }
    serde_json::from_str(&body).context("the answer is not JSON")
}
