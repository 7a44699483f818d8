//! What a record must satisfy for this model, beyond what every record must: it comes from another process.

use anyhow::{Result, ensure};
use models::config::ModelConfig;
use models::image::Grid;
use models::positions;
use shared::record::GroupRecord;

/// Says why the model could not be trained on `record`: a token outside of the vocabulary, images that don't fit the
/// patches or the prompt, no prompt, a temperature that nothing was sampled at. A record without responses stands for a
/// sample that was passed over, and needs none of it.
pub fn check(record: &GroupRecord, config: &ModelConfig) -> Result<()> {
    if record.responses.is_empty() {
        return Ok(());
    }
    ensure!(
        record.temperature > 0.0,
        "temperature {}",
        record.temperature
    );
    ensure!(!record.prompt_ids.is_empty(), "an empty prompt");
    let responses = record
        .responses
        .iter()
        .flat_map(|response| &response.token_ids);
    for &id in record.prompt_ids.iter().chain(responses) {
        ensure!(
            (id as usize) < config.text.vocab_size,
            "token {id} in a vocabulary of {}",
            config.text.vocab_size
        );
    }
    let vision = &config.vision;
    let unit = vision.patch_size * vision.spatial_merge_size;
    let mut grids = Vec::with_capacity(record.images.len());
    for image in &record.images {
        let (width, height) = (image.width as usize, image.height as usize);
        ensure!(
            width.is_multiple_of(unit) && height.is_multiple_of(unit),
            "an image of {width} x {height} pixels, expected multiples of {unit}"
        );
        grids.push(Grid {
            t: 1,
            h: height / vision.patch_size,
            w: width / vision.patch_size,
        });
    }
    positions::mrope(&record.prompt_ids, &grids, config)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use shared::record::ImageRecord;

    use super::*;
    use crate::test_records::{group, response};

    fn record(config: &ModelConfig) -> GroupRecord {
        let unit = config.vision.patch_size * config.vision.spatial_merge_size;
        let side = u32::try_from(unit).unwrap();
        let tokens = &config.tokens;
        GroupRecord {
            prompt_ids: vec![tokens.vision_start, tokens.image, tokens.vision_end, 1],
            images: vec![ImageRecord {
                width: side,
                height: side,
                pixels: vec![0; unit * unit * 3],
            }],
            ..group(0, vec![response(2)])
        }
    }

    #[test]
    fn records_that_the_model_cannot_take_are_refused() -> Result<()> {
        let config = ModelConfig::from_dir(&::tests::Fixtures::open()?.model())?;
        assert!(check(&record(&config), &config).is_ok());
        type Spoil = fn(&mut GroupRecord);
        let spoiled: [(&str, Spoil); 6] = [
            ("token", |record| {
                record.responses[0].token_ids[1] = u32::MAX;
            }),
            ("token", |record| record.prompt_ids[3] = u32::MAX),
            ("empty prompt", |record| record.prompt_ids.clear()),
            ("temperature", |record| record.temperature = 0.0),
            ("multiples", |record| record.images[0].width += 1),
            ("", |record| record.images.clear()),
        ];
        for (reason, spoil) in spoiled {
            let mut record = record(&config);
            spoil(&mut record);
            let error = check(&record, &config).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        Ok(())
    }
}
