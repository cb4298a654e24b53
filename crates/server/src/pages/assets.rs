//! The web page, embedded: what its build left in `web/page/dist`, each file also compressed
//! beforehand (`NAME.br`, `NAME.gz`). A checkout in which it was never built embeds nothing.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rust_embed::{Embed, EmbeddedFile};

/// The file that is served at `/`.
pub(super) const INDEX: &str = "index.html";
/// Scripts, styles and calls of this origin only, nothing inline; `wasm-unsafe-eval` lets the page
/// compile the log, which comes from this origin too.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self'; connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Names below this folder carry a hash of what they hold.
const HASHED: &str = "assets/";
const IMMUTABLE: &str = "public, max-age=31536000, immutable";
/// Ask each time whether it is still the same.
const REVALIDATE: &str = "no-cache";
/// The encodings files are kept in, best first, and how their names end.
const ENCODINGS: [(&str, &str); 2] = [("br", "br"), ("gzip", "gz")];
/// Characters of the hash in an entity tag.
const TAG_BYTES: usize = 16;

#[derive(Embed)]
#[folder = "../../web/page/dist"]
#[allow_missing = true]
struct Dist;

/// The answer to a GET of an embedded file, `None` where there is no such file.
pub(super) fn get(path: &str, request: &HeaderMap) -> Option<Response> {
    let content_type = content_type(path)?;
    let plain = Dist::get(path)?;
    let (file, encoding) = smallest(path, request).unwrap_or((plain, None));
    let tag = entity_tag(&file);
    let mut response = if has_tag(request, &tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Body::from(file.data).into_response()
    };
    let cache = if path.starts_with(HASHED) {
        IMMUTABLE
    } else {
        REVALIDATE
    };
    let headers = response.headers_mut();
    let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
    set(header::CONTENT_TYPE, content_type);
    set(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY);
    set(header::CACHE_CONTROL, cache);
    set(header::VARY, "accept-encoding");
    if let Some(encoding) = encoding {
        set(header::CONTENT_ENCODING, encoding);
    }
    headers.insert(header::ETAG, HeaderValue::from_str(&tag).ok()?);
    Some(response)
}

/// The file in the best encoding that the request takes.
fn smallest(path: &str, request: &HeaderMap) -> Option<(EmbeddedFile, Option<&'static str>)> {
    let accepted = request.get(header::ACCEPT_ENCODING)?.to_str().ok()?;
    ENCODINGS.into_iter().find_map(|(encoding, ending)| {
        let file = takes(accepted, encoding).then(|| Dist::get(&format!("{path}.{ending}")))??;
        Some((file, Some(encoding)))
    })
}

/// Whether a list like `gzip, br;q=0.5` names an encoding, and not with a weight of nothing.
fn takes(accepted: &str, encoding: &str) -> bool {
    accepted.split(',').any(|item| {
        let (name, weight) = item.split_once(';').unwrap_or((item, ""));
        let refused = weight
            .trim()
            .strip_prefix("q=")
            .and_then(|weight| weight.parse::<f32>().ok())
            .is_some_and(|weight| weight <= 0.0);
        name.trim().eq_ignore_ascii_case(encoding) && !refused
    })
}

/// Of these very bytes: the same file has another tag in another encoding.
fn entity_tag(file: &EmbeddedFile) -> String {
    let hash = file.metadata.sha256_hash();
    let hex: String = hash[..TAG_BYTES]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("\"{hex}\"")
}

fn has_tag(request: &HeaderMap, tag: &str) -> bool {
    let known = request.get(header::IF_NONE_MATCH);
    let known = known.and_then(|value| value.to_str().ok()).unwrap_or("");
    known
        .split(',')
        .any(|known| known.trim().trim_start_matches("W/") == tag)
}

/// By how a name ends; what the page does not consist of is not served.
fn content_type(path: &str) -> Option<&'static str> {
    let (_, ending) = path.rsplit_once('.')?;
    Some(match ending {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "wasm" => "application/wasm",
        "svg" => "image/svg+xml",
        "txt" => "text/plain; charset=utf-8",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoding_is_taken_when_it_is_named_and_not_refused() {
        assert!(takes("gzip, deflate, br", "br"));
        assert!(takes("br;q=0.1", "br"));
        assert!(!takes("br;q=0, gzip", "br"));
        assert!(!takes("gzip", "br"));
        assert!(!takes("", "gzip"));
    }

    #[test]
    fn a_known_tag_is_found_in_a_list_and_weak_too() {
        let mut request = HeaderMap::new();
        assert!(!has_tag(&request, "\"b\""));
        request.insert(
            header::IF_NONE_MATCH,
            HeaderValue::from_static("\"a\", W/\"b\""),
        );
        assert!(has_tag(&request, "\"b\""));
        assert!(!has_tag(&request, "\"c\""));
    }
}
