//! `template.yaml`, its intrinsic functions as tagged values.

use std::collections::BTreeMap;

use yaml_serde::{Mapping, Value};

pub fn load() -> Value {
    yaml_serde::from_str(&std::fs::read_to_string("template.yaml").unwrap()).unwrap()
}

/// The resource with this logical id.
pub fn resource(id: &str) -> Value {
    let resource = load()["Resources"][id].clone();
    assert!(!resource.is_null(), "no {id} in template.yaml");
    resource
}

/// The properties of every resource of this type, by logical id.
pub fn resources_of(kind: &str) -> BTreeMap<String, Value> {
    let template = load();
    let resources = template["Resources"].as_mapping().unwrap().iter();
    let of_kind = resources.filter(|(_, resource)| resource["Type"].as_str() == Some(kind));
    of_kind.map(|(id, resource)| (id.as_str().unwrap().to_owned(), resource["Properties"].clone())).collect()
}

/// A function's properties, those of `Globals` among them as SAM merges them.
pub fn function(id: &str) -> Value {
    merged(&load()["Globals"]["Function"], &resource(id)["Properties"])
}

fn merged(general: &Value, special: &Value) -> Value {
    let (Some(general), Some(special)) = (general.as_mapping(), special.as_mapping()) else {
        return special.clone();
    };
    let mut both: Mapping = general.clone();
    for (name, value) in special {
        let value = general.get(name).map_or_else(|| value.clone(), |general| merged(general, value));
        both.insert(name.clone(), value);
    }
    both.into()
}
