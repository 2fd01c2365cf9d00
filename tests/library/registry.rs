//! What models.toml says of the files in this repository is true.

use powerinfer::gguf::Gguf;
use powerinfer::model::{Model, registry};
use sha2::{Digest, Sha256};
use std::path::Path;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn checksums_and_activations_of_our_own_models_are_right() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let mut n_checked = 0;
    for known in registry::all().unwrap() {
        for file in &known.files {
            let path = folder.join(&file.name);
            if !path.exists() {
                assert!(!known.verified, "{}: verified, but the file is not here", file.name);
                continue;
            }
            assert_eq!(hex(&Sha256::digest(std::fs::read(&path).unwrap())), file.sha256, "{}", file.name);
            let model = Model::new(Gguf::open(&path).unwrap(), None).unwrap();
            assert_eq!(model.config.activation.activation.to_string(), known.activation, "{}", file.name);
            assert_eq!(model.config.arch, known.architecture, "{}", file.name);
            assert_eq!(registry::find(&model.config.name, &known.architecture).unwrap().unwrap().name, known.name);
            n_checked += 1;
        }
    }
    assert!(n_checked >= 2, "{n_checked} files checked");
}
