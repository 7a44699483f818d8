//! The graphs for devices: what they are made of, as far as that shows without a device.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test binary")]

mod checker;
mod cuda;
mod tensorrt;

use std::collections::HashSet;

use models::checkpoint::F32Layout;
use models::config::ModelConfig;
use models::graph::{self, Cuda, CudaCache, Elements, Form, Operators, Trt};
use models::names;
use models::onnx::proto::{GraphProto, ModelProto};
use models::onnx::{DataType, weight_inputs};
use prost::Message;
use tests::Fixtures;

const SLOTS: usize = 96;
const CANDIDATES: usize = 32;

fn trt(elements: Elements, operators: Operators, candidates: Option<usize>) -> Form {
    Form::Trt(Trt {
        elements,
        operators,
        slots: SLOTS,
        candidates,
    })
}

fn trt_forms() -> Vec<Form> {
    let mut forms = Vec::new();
    for elements in [Elements::F32, Elements::Bf16] {
        for operators in [Operators::Native, Operators::Decomposed] {
            for candidates in [None, Some(CANDIDATES)] {
                forms.push(trt(elements, operators, candidates));
            }
        }
    }
    forms
}

fn cuda_forms() -> Vec<Form> {
    let mut forms = Vec::new();
    for elements in [Elements::F32, Elements::Bf16] {
        for cache in [CudaCache::Blocks, CudaCache::Rows] {
            for candidates in [None, Some(CANDIDATES)] {
                forms.push(Form::Cuda(Cuda {
                    elements,
                    cache,
                    candidates,
                }));
            }
        }
    }
    forms
}

/// Calls `test` with the decoder and the vision tower of every set of fixtures in each of the forms.
fn each(forms: &[Form], test: impl Fn(&str, Form, &[u8], &ModelConfig)) {
    Fixtures::each(|fixtures| {
        let config = ModelConfig::from_dir(&fixtures.model()).unwrap();
        let layout = F32Layout::new(&names::tensors(&config));
        for &form in forms {
            let decoder = graph::decoder(&config, &layout, form).unwrap();
            test("decoder", form, &decoder, &config);
            let vision = graph::vision(&config, &layout, form).unwrap();
            test("vision", form, &vision, &config);
        }
    })
    .unwrap();
}

fn decode(bytes: &[u8]) -> (ModelProto, GraphProto) {
    let model = ModelProto::decode(bytes).unwrap();
    let graph = model.graph.clone().unwrap();
    (model, graph)
}

fn elements(form: Form) -> Elements {
    match form {
        Form::Trt(Trt { elements, .. }) | Form::Cuda(Cuda { elements, .. }) => elements,
        Form::Portable | Form::Engine => unreachable!("not for a device"),
    }
}

#[test]
fn weights_of_device_graphs_are_inputs_that_say_where_they_lie() {
    let forms = [trt_forms(), cuda_forms()].concat();
    each(&forms, |name, form, bytes, config| {
        let specs = names::tensors(config);
        let layout = F32Layout::new(&specs);
        let weights = weight_inputs(bytes).unwrap();
        let elements = DataType::from(elements(form));
        let mut covered = HashSet::new();
        let mut wide = 0;
        for weight in &weights {
            assert_eq!(weight.location, graph::WEIGHTS_FILE);
            let published = weight.name.strip_suffix(".f32");
            let is_wide = published.is_some() && elements != DataType::Float;
            wide += usize::from(is_wide);
            let expected = if is_wide { DataType::Float } else { elements };
            assert_eq!(weight.data_type, expected, "{name}: {}", weight.name);
            let mut offset = weight.offset;
            for part in published.unwrap_or(&weight.name).split('+') {
                assert_eq!(layout.offset(part), Some(offset), "{name}: {part}");
                let spec = specs.iter().find(|spec| spec.name == part).unwrap();
                offset += spec.shape.iter().product::<usize>() * size_of::<f32>();
                covered.insert(part.to_owned());
            }
            assert_eq!(
                offset,
                weight.offset + weight.length,
                "{name}: {}",
                weight.name
            );
        }
        let is_vision = |name: &str| name.starts_with("visual.");
        for spec in specs {
            let is_own = is_vision(&spec.name) == (name == "vision");
            assert_eq!(
                covered.contains(&spec.name),
                is_own,
                "{name}: {}",
                spec.name
            );
        }
        // The final norm and the head, where the rest is narrower.
        let is_narrow = name == "decoder" && elements != DataType::Float;
        assert_eq!(wide, if is_narrow { 2 } else { 0 }, "{name} {form:?}");
    });
}

#[test]
fn sizes_that_no_device_takes_are_refused() {
    let fixtures = Fixtures::open().unwrap();
    let mut config = ModelConfig::from_dir(&fixtures.model()).unwrap();
    let layout = F32Layout::new(&names::tensors(&config));
    for candidates in [0, graph::head::MAX_CANDIDATES] {
        let form = trt(Elements::Bf16, Operators::Native, Some(candidates));
        let error = graph::decoder(&config, &layout, form).unwrap_err();
        assert!(error.to_string().contains("takes 1 to 3839"), "{error}");
    }
    config.text.head_dim = 20;
    config.text.mrope_section = [2, 4, 4];
    let layout = F32Layout::new(&names::tensors(&config));
    for form in cuda_forms() {
        let error = graph::decoder(&config, &layout, form).unwrap_err();
        assert!(error.to_string().contains("head dim 20"), "{error}");
    }
}
