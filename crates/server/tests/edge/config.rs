//! Where configuration comes from, and what is said about mistakes in it.

use comlog_server::{ConfigError, HttpConfig, Loaded, ServerConfig};

type Pairs<'a> = &'a [(&'a str, &'a str)];

fn pairs(pairs: Pairs<'_>) -> Vec<(String, String)> {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

fn load(file: &str, env: Pairs<'_>, flags: Pairs<'_>) -> Result<Loaded, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("comlog.toml");
    std::fs::write(&path, file).unwrap();
    ServerConfig::load(Some(&path), pairs(env), &pairs(flags))
}

/// The one key each row is about, set in the layers it names: the strongest wins.
#[test]
fn flags_go_over_environment_over_file_over_defaults() {
    const ENV: &str = "COMLOG_HTTP__CONNECTIONS_MAX";
    const KEY: &str = "http.connections_max";
    let table: [(&str, Pairs<'_>, Pairs<'_>, usize); 8] = [
        ("", &[], &[], HttpConfig::default().connections_max),
        ("1", &[], &[], 1),
        ("", &[(ENV, "2")], &[], 2),
        ("", &[], &[(KEY, "3")], 3),
        ("1", &[(ENV, "2")], &[], 2),
        ("1", &[], &[(KEY, "3")], 3),
        ("", &[(ENV, "2")], &[(KEY, "3")], 3),
        ("1", &[(ENV, "2")], &[(KEY, "3")], 3),
    ];
    for (file, env, flags, expected) in table {
        let file = match file {
            "" => String::new(),
            value => format!("[http]\nconnections_max = {value}\n"),
        };
        let http = load(&file, env, flags).unwrap().config.http;
        assert_eq!(http.connections_max, expected, "{file:?} {env:?} {flags:?}");
        assert_eq!(
            http.idle_timeout_ms,
            HttpConfig::default().idle_timeout_ms,
            "other keys of the section keep their defaults"
        );
    }
}

#[test]
fn units_are_understood_in_every_layer() {
    let file = "drain_timeout_ms = \"1m\"\n[http]\nheader_bytes_max = \"9KiB\"\n";
    let env = [("COMLOG_HTTP__IDLE_TIMEOUT_MS", "100ms")];
    let flags = [
        ("http.handshake_timeout_ms", "5s"),
        ("disk.tail_bytes_max", "64MiB"),
    ];
    let config = load(file, &env, &flags).unwrap().config;
    assert_eq!(config.drain_timeout_ms, 60_000);
    assert_eq!(config.http.header_bytes_max, 9 << 10);
    assert_eq!(config.http.idle_timeout_ms, 100);
    assert_eq!(config.http.handshake_timeout_ms, 5_000);
    assert_eq!(config.disk.tail_bytes_max, 64 << 20);
}

#[test]
fn an_unknown_key_is_an_error_that_names_it() {
    for (file, key) in [
        ("[http]\nconections_max = 1\n", "http.conections_max"),
        ("nonsense = 1\n", "nonsense"),
        ("[nonsense]\nkey = 1\n", "nonsense"),
    ] {
        let error = load(file, &[], &[]).unwrap_err().to_string();
        assert!(
            error.contains(key) && error.contains("comlog.toml"),
            "{error}"
        );
    }
    for key in ["nonsense", "http", "http.nonsense", "listen.port"] {
        let error = load("", &[], &[(key, "1")]).unwrap_err().to_string();
        assert!(error.contains(key), "{error}");
    }
}

#[test]
fn an_unknown_variable_is_a_warning_and_those_of_clients_are_not() {
    let env = [
        ("COMLOG_NONSENSE", "1"),
        ("COMLOG_HTTP", "1"),
        ("COMLOG_SERVER", "http://elsewhere"),
        ("COMLOG_CONFIG", "file"),
        ("HOME", "/"),
    ];
    let loaded = load("", &env, &[]).unwrap();
    assert_eq!(loaded.config, ServerConfig::default());
    assert_eq!(loaded.warnings.len(), 2, "{:?}", loaded.warnings);
    assert!(loaded.warnings[0].contains("COMLOG_NONSENSE"));
    assert!(loaded.warnings[1].contains("COMLOG_HTTP"));
}

#[test]
fn a_value_that_does_not_fit_is_refused_by_the_name_of_its_key() {
    for (key, value) in [
        ("http.connections_max", "many"),
        ("http.connections_max", "0"),
        ("http.connections_max", "-1"),
        ("http.header_bytes_max", "1"),
        ("http.cors_origins", "example.org"),
        ("http.cors_origins", "https://example.org/path"),
        ("listen", "here"),
        ("tls.self_signed", "perhaps"),
        ("tls.cert", "only.pem"),
        ("log.format", "xml"),
        ("disk.maps_max", "0"),
        ("drain_timeout_ms", "soon"),
    ] {
        let error = load("", &[], &[(key, value)]).unwrap_err().to_string();
        assert!(error.contains(key), "{key}={value}: {error}");
    }
    let error = load("listen = 5\n", &[], &[]).unwrap_err().to_string();
    assert!(error.contains("listen"), "{error}");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let missing = std::path::Path::new("/no/such/comlog.toml");
    let error = ServerConfig::load(Some(missing), [], &[]).unwrap_err();
    assert!(
        error.to_string().contains("/no/such/comlog.toml"),
        "{error}"
    );
    let error = load("[http\n", &[], &[]).unwrap_err().to_string();
    assert!(error.contains("comlog.toml"), "{error}");
}

#[test]
fn what_is_printed_is_read_back() {
    let flags = [
        ("http.idle_timeout_ms", "5s"),
        ("http.cors_origins", "http://a, http://b:8080"),
        ("tls.self_signed", "true"),
        ("log.format", "json"),
        ("listen", "[::1]:0"),
    ];
    let config = load("", &[], &flags).unwrap().config;
    assert_eq!(config.http.cors_origins, ["http://a", "http://b:8080"]);
    assert_ne!(config, ServerConfig::default());
    let printed = config.to_toml().unwrap();
    assert_eq!(load(&printed, &[], &[]).unwrap().config, config);
}
