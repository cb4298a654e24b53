//! Compiles anew when the web page was built anew, since it is embedded.

use std::path::Path;

fn main() {
    let page = Path::new("../../web/page");
    // Cargo takes a path that does not exist for one that has always just changed.
    for path in [
        page.join("dist"),
        page.to_path_buf(),
        "../../Cargo.toml".into(),
    ] {
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
            return;
        }
    }
}
