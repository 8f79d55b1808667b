//! The JavaScript client, and the demo page where the configuration wants it: files of `control/web`, within the program.

use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Redirect};
use axum::routing::get;

use super::Shared;

const SCRIPT: &str = "text/javascript; charset=utf-8";
/// What the demo page may load: its own files, and calls to us.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; media-src 'self' blob:; \
                      img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

type Head = [(HeaderName, HeaderValue); 4];

fn head(kind: &'static str) -> Head {
    [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
    ]
}

/// A page of any origin may load the client by a script tag; as a module it needs CORS, which scripts without secrets
/// can grant to all.
fn script(text: &'static str) -> impl IntoResponse {
    ([(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"))], head(SCRIPT), text)
}

macro_rules! web {
    ($name:literal) => {
        include_str!(concat!("../../web/", $name))
    };
}

/// Paths of the files.
pub fn router(demo: bool) -> Router<Shared> {
    let router = Router::new()
        .route("/client/sallyport.js", get(|| async { script(web!("dist/sallyport.js")) }))
        .route("/client/grtc.js", get(|| async { script(web!("dist/grtc.js")) }))
        .route("/client/sallyport.iife.js", get(|| async { script(web!("dist/sallyport.iife.js")) }));
    if !demo {
        return router;
    }
    let page = "text/html; charset=utf-8";
    router
        .route("/demo", get(|| async { Redirect::permanent("/demo/") }))
        .route("/demo/", get(move || async move { (head(page), web!("demo/index.html")) }))
        .route("/demo/demo.js", get(|| async { (head(SCRIPT), web!("demo/demo.js")) }))
        .route("/demo/demo.css", get(|| async { (head("text/css; charset=utf-8"), web!("demo/demo.css")) }))
}
