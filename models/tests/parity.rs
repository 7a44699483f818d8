//! Parity with the reference values of `PARITY_FIXTURES`: everything before the first matrix product.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test binary")]

use models::checkpoint::{Checkpoint, F32Layout, write_f32};
use models::image::RgbImage;
use models::names;
use models::positions::{Positions, mrope, vision_plan};
use models::processor::{Blank, Processor, Prompt};
use tests::{Fixtures, PromptCase, Tensors};

fn each(test: impl Fn(&Fixtures, &Processor)) {
    Fixtures::each(|fixtures| {
        let processor = Processor::from_dir(&fixtures.model()).unwrap();
        test(&fixtures, &processor);
    })
    .unwrap();
}

fn prompt(fixtures: &Fixtures, processor: &Processor, case: &PromptCase) -> Prompt {
    let images: Vec<RgbImage> = case
        .images
        .iter()
        .map(|name| {
            processor
                .images
                .decode(&fixtures.image(name).unwrap())
                .unwrap()
        })
        .collect();
    processor.prompt(&case.messages, &images).unwrap()
}

#[test]
fn tokenizer_cases() {
    each(|fixtures, processor| {
        let cases = fixtures.tokenizer_cases().unwrap();
        assert!(!cases.is_empty());
        for case in cases {
            assert_eq!(
                processor.tokenizer.encode(&case.text).unwrap(),
                case.ids,
                "{:?}",
                case.text
            );
            assert_eq!(
                processor.tokenizer.decode(&case.ids, false).unwrap(),
                case.decoded,
                "{:?}",
                case.text
            );
        }
    });
}

#[test]
fn chat_text_and_token_ids() {
    each(|fixtures, processor| {
        for case in fixtures.prompts().unwrap() {
            let text = processor.chat.render(&case.messages, true).unwrap();
            assert_eq!(text, case.chat_text, "{}", case.name);
            assert_eq!(
                processor.tokenizer.encode(&text).unwrap(),
                case.unexpanded_ids,
                "{}",
                case.name
            );
            let prompt = prompt(fixtures, processor, &case);
            assert_eq!(prompt.text, case.chat_text, "{}", case.name);
            assert_eq!(prompt.token_ids, case.input_ids, "{}", case.name);
            assert_eq!(prompt.grids, case.grids, "{}", case.name);
            for (image, grid) in prompt.images.iter().zip(&prompt.grids) {
                assert_eq!(
                    processor.images.patches(image).unwrap().grid,
                    *grid,
                    "{}",
                    case.name
                );
            }
            let length = case.input_ids.len();
            assert!(prompt.check_length(length, &processor.config).is_ok());
            let error = prompt
                .check_length(length - 1, &processor.config)
                .unwrap_err()
                .to_string();
            assert!(
                error.contains(&format!("prompt of {length} tokens")),
                "{error}"
            );
        }
    });
}

#[test]
fn blank_forms() {
    each(|fixtures, processor| {
        let blanks = fixtures.tensors("blank").unwrap();
        for case in fixtures.prompts().unwrap() {
            let prompt = prompt(fixtures, processor, &case);
            for (name, form) in [
                ("empty", Blank::Empty),
                ("drop", Blank::Drop),
                ("black", Blank::Black),
            ] {
                let blank = processor.blank(&case.messages, &prompt, form).unwrap();
                assert_eq!(
                    blank.token_ids, case.blank_ids[name],
                    "{} {name}",
                    case.name
                );
                let stored = blanks
                    .ids(&format!("p{}.{name}.input_ids", case.index))
                    .unwrap();
                assert_eq!(blank.token_ids, stored, "{} {name}", case.name);
                // The text that a blank shows for itself is the text it was made of.
                if form != Blank::Black {
                    assert_eq!(
                        processor.tokenizer.encode(&blank.text).unwrap(),
                        blank.token_ids,
                        "{} {name}",
                        case.name
                    );
                    assert!(blank.images.is_empty() && blank.grids.is_empty());
                }
            }
            for (form, level) in [(Blank::Black, 0), (Blank::Grey, 127)] {
                let blank = processor.blank(&case.messages, &prompt, form).unwrap();
                assert_eq!(blank.token_ids, prompt.token_ids);
                assert_eq!(blank.grids, prompt.grids);
                assert_eq!(blank.images.len(), prompt.images.len());
                for (blank, image) in blank.images.iter().zip(&prompt.images) {
                    assert_eq!((blank.width, blank.height), (image.width, image.height));
                    assert_eq!(blank.pixels.len(), image.pixels.len());
                    assert!(blank.pixels.iter().all(|&sample| sample == level));
                }
            }
        }
    });
}

#[test]
fn a_black_image_has_the_stored_pixel_values() {
    each(|fixtures, processor| {
        let expected = fixtures.json("meta").unwrap()["black_pixel_values_rgb"].clone();
        for case in fixtures
            .prompts()
            .unwrap()
            .iter()
            .filter(|case| !case.images.is_empty())
        {
            let prompt = prompt(fixtures, processor, case);
            let black = processor
                .blank(&case.messages, &prompt, Blank::Black)
                .unwrap();
            let patches = processor.images.patches(&black.images[0]).unwrap();
            let row = patches.values.len() / patches.grid.num_patches(); // C * T * P * P
            for (channel, samples) in patches.values[..row].chunks(row / 3).enumerate() {
                let difference = f64::from(samples[0]) - expected[channel].as_f64().unwrap();
                assert!(difference.abs() < 1e-6, "channel {channel}: {difference}");
            }
        }
    });
}

/// Compares with `[3, rows, columns]` of `position_ids`, at the columns of row `row` whose mask is set.
fn assert_positions(
    got: &Positions,
    tensors: &Tensors,
    name: &str,
    rows: usize,
    row: usize,
    mask: Option<&[i64]>,
) {
    let expected = tensors.i64(&format!("{name}.position_ids")).unwrap();
    let columns = expected.shape[2];
    assert_eq!(expected.shape, [3, rows, columns]);
    for (axis, got) in got.ids.iter().enumerate() {
        let start = (axis * rows + row) * columns;
        let expected: Vec<i64> = expected.data[start..start + columns]
            .iter()
            .enumerate()
            .filter(|(column, _)| mask.is_none_or(|mask| mask[row * columns + column] == 1))
            .map(|(_, &position)| position)
            .collect();
        assert_eq!(*got, expected, "{name} row {row} axis {axis}");
    }
}

#[test]
fn positions_of_single_prompts() {
    each(|fixtures, processor| {
        let forward = fixtures.tensors("forward").unwrap();
        for case in fixtures.prompts().unwrap() {
            let response = forward
                .ids(&format!("p{}.r0.response_ids", case.index))
                .unwrap();
            assert_eq!(response, case.responses[0]);
            let sequence = [case.input_ids.clone(), response].concat();
            for (name, ids) in [
                (format!("p{}", case.index), &case.input_ids),
                (format!("p{}.r0", case.index), &sequence),
            ] {
                let positions = mrope(ids, &case.grids, &processor.config).unwrap();
                assert_positions(&positions, &forward, &name, 1, 0, None);
                let delta = forward.i64(&format!("{name}.rope_deltas")).unwrap().data[0];
                assert_eq!(positions.next - ids.len() as i64, delta, "{name}");
            }
        }
    });
}

#[test]
fn positions_of_padded_batches() {
    each(|fixtures, processor| {
        let forward = fixtures.tensors("forward").unwrap();
        let cases = fixtures.prompts().unwrap();
        for name in ["batch", "batch_pr"] {
            let mask = forward.i64(&format!("{name}.attention_mask")).unwrap();
            let input_ids = forward.i64(&format!("{name}.input_ids")).unwrap();
            let deltas = forward.i64(&format!("{name}.rope_deltas")).unwrap();
            let columns = mask.shape[1];
            for (row, case) in cases.iter().enumerate() {
                let real: Vec<u32> = (row * columns..(row + 1) * columns)
                    .filter(|&cell| mask.data[cell] == 1)
                    .map(|cell| u32::try_from(input_ids.data[cell]).unwrap())
                    .collect();
                let expected = match name {
                    "batch" => case.input_ids.clone(),
                    _ => [case.input_ids.clone(), case.responses[0].clone()].concat(),
                };
                assert_eq!(real, expected, "{name} row {row}");
                let positions = mrope(&real, &case.grids, &processor.config).unwrap();
                assert_positions(
                    &positions,
                    &forward,
                    name,
                    cases.len(),
                    row,
                    Some(&mask.data),
                );
                let delta = positions.next - real.len() as i64;
                assert_eq!(deltas.data[row], delta, "{name} row {row}");
            }
        }
    });
}

#[test]
fn window_order() {
    each(|fixtures, processor| {
        let forward = fixtures.tensors("forward").unwrap();
        let cases = fixtures.prompts().unwrap();
        let mut compared = 0;
        for case in &cases {
            let name = format!("debug.p{}", case.index);
            if !forward.has(&format!("{name}.window_index")) {
                continue;
            }
            compared += 1;
            let plan = vision_plan(&case.grids, &processor.config.vision);
            assert_eq!(
                plan.window_index,
                forward.i64(&format!("{name}.window_index")).unwrap().data
            );
            let mut ends = vec![0];
            for &length in &plan.window_lengths {
                ends.push(ends[ends.len() - 1] + length as i64);
            }
            assert_eq!(
                ends,
                forward
                    .i64(&format!("{name}.cu_window_seqlens"))
                    .unwrap()
                    .data
            );
        }
        assert!(compared > 0);
    });
}

#[test]
fn the_checkpoint_is_complete_and_converts() {
    each(|fixtures, processor| {
        let checkpoint = Checkpoint::open(&fixtures.model()).unwrap();
        checkpoint.check(&processor.config).unwrap();
        let specs = names::tensors(&processor.config);

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        write_f32(&path, &checkpoint, &processor.config).unwrap();
        let layout = F32Layout::new(&specs);
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), layout.total_bytes);
        let written = Checkpoint::open(folder.path()).unwrap();
        assert_eq!(written.names().count(), specs.len());
        // The crate that wrote the fixtures reads it too.
        let reference = Tensors::open(&path).unwrap();
        for spec in &specs {
            let values = checkpoint.read_f32(&spec.name).unwrap();
            assert_eq!(
                values,
                written.read_f32(&spec.name).unwrap(),
                "{}",
                spec.name
            );
            assert_eq!(
                values,
                reference.f32(&spec.name).unwrap().data,
                "{}",
                spec.name
            );
            let offset = layout.offset(&spec.name).unwrap();
            assert_eq!(
                bytes[offset..offset + 4],
                values[0].to_le_bytes(),
                "{}",
                spec.name
            );
        }
    });
}
