//! `template.yaml`, with its intrinsic functions as tagged values.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use yaml_serde::value::TaggedValue;
use yaml_serde::{Mapping, Value};

/// Returns the template. Each test program parses it once.
pub fn load() -> &'static Value {
    static TEMPLATE: LazyLock<Value> = LazyLock::new(|| load_from("template.yaml"));
    &TEMPLATE
}

pub fn load_from(path: &str) -> Value {
    yaml_serde::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Returns a value as CloudFormation resolves it, if its functions need only the given parameters.
pub fn resolved(template: &Value, value: &Value, given: &[(&str, &str)]) -> String {
    let Value::Tagged(tagged) = value else {
        return yaml_serde::to_string(value).unwrap().trim().to_owned();
    };
    let of = |value: &Value| resolved(template, value, given);
    let parameter = |name: &str| given.iter().find(|(given, _)| *given == name).map(|(_, value)| (*value).to_owned());
    let holds = |value: &Value| of(value) == "true";
    let argument = &tagged.value;
    let tag = tagged.tag.to_string();
    match tag.trim_start_matches('!') {
        "Ref" => parameter(argument.as_str().unwrap()).unwrap_or_else(|| format!("{value:?}")),
        "If" if holds(&template["Conditions"][argument[0].as_str().unwrap()]) => of(&argument[1]),
        "If" => of(&argument[2]),
        "Condition" => of(&template["Conditions"][argument.as_str().unwrap()]),
        "Equals" => (of(&argument[0]) == of(&argument[1])).to_string(),
        "Not" => (!holds(&argument[0])).to_string(),
        "And" => argument.as_sequence().unwrap().iter().all(holds).to_string(),
        "Or" => argument.as_sequence().unwrap().iter().any(holds).to_string(),
        "GetAtt" => argument.as_str().unwrap().to_owned(),
        other => panic!("this helper does not support {other}"),
    }
}

/// Returns the resource with this logical id.
pub fn resource(id: &str) -> Value {
    let resource = load()["Resources"][id].clone();
    assert!(!resource.is_null(), "template.yaml has no resource {id}");
    resource
}

/// Returns the properties of every resource of this type, by logical id.
pub fn resources_of(kind: &str) -> BTreeMap<String, Value> {
    let template = load();
    let resources = template["Resources"].as_mapping().unwrap().iter();
    let of_kind = resources.filter(|(_, resource)| resource["Type"].as_str() == Some(kind));
    of_kind.map(|(id, resource)| (id.as_str().unwrap().to_owned(), resource["Properties"].clone())).collect()
}

/// Returns the statements of the policies that a role has with any parameters.
pub fn unconditional_statements(role: &Value) -> Vec<&Value> {
    let policies = role["Properties"]["Policies"].as_sequence().unwrap();
    policies.iter().filter(|policy| policy.is_mapping()).flat_map(statements).collect()
}

/// Returns the policies that a role has only under a condition.
pub fn conditional_policies(role: &Value) -> Vec<&TaggedValue> {
    let policies = role["Properties"]["Policies"].as_sequence().unwrap();
    let policies = policies.iter().filter_map(|policy| match policy {
        Value::Tagged(tagged) => Some(&**tagged),
        _ => None,
    });
    policies.collect()
}

/// Returns the separate policies that are attached to a role under any parameters, by their ids.
pub fn separate_policies(role: &str) -> BTreeMap<String, Value> {
    let reference: Value = yaml_serde::from_str(&format!("!Ref {role}")).unwrap();
    let names_role = |entry: &Value| match entry {
        entry if *entry == reference => true,
        // A role that exists only under a condition.
        Value::Tagged(tagged) if tagged.tag == "If" => tagged.value[1] == reference,
        _ => false,
    };
    let mut policies = resources_of("AWS::IAM::Policy");
    policies.retain(|_, policy| policy["Roles"].as_sequence().unwrap().iter().any(names_role));
    policies
}

/// Returns every statement of every policy in a part of the template.
pub fn statements(part: &Value) -> Vec<&Value> {
    match part {
        Value::Mapping(mapping) if mapping.contains_key("Effect") => vec![part],
        Value::Mapping(mapping) => mapping.values().flat_map(statements).collect(),
        Value::Sequence(values) => values.iter().flat_map(statements).collect(),
        Value::Tagged(tagged) => statements(&tagged.value),
        _ => Vec::new(),
    }
}

/// Returns the properties of the saved queries, by their names without the stack's folder.
pub fn saved_queries() -> BTreeMap<String, Value> {
    let name = |query: &Value| {
        let name = yaml_serde::to_string(&query["Name"]).unwrap();
        name.trim()
            .strip_prefix("!Sub ${AWS::StackName}/")
            .expect("the query should be in the stack's folder")
            .to_owned()
    };
    resources_of("AWS::Logs::QueryDefinition").into_values().map(|query| (name(&query), query)).collect()
}

/// Returns a function's properties, merged with those of `Globals` as by SAM.
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
