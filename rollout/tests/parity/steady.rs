//! A row's logits do not depend, to the last bit, on the rows around it: else what is sampled would depend on what else
//! is in flight.

use super::setup::{Row, Setup, prefill, step};

#[test]
fn a_sequence_is_the_same_alone_and_beside_others() {
    Setup::each(|mut setup| {
        let prompts = setup.prompts.clone();
        let starts: Vec<_> = prompts
            .iter()
            .map(|prompt| setup.start(prompt).sequence)
            .collect();
        let together = setup.forward(&starts);
        for (start, together) in starts.iter().zip(&together) {
            let alone = setup.forward(std::slice::from_ref(start)).remove(0);
            assert_eq!(&alone, together, "prompt of {} tokens", start.ids.len());
        }
    });
}

#[test]
fn a_step_is_the_same_beside_longer_rows_and_with_other_blocks() {
    Setup::each(|mut setup| {
        let prompts = setup.prompts.clone();
        let starts: Vec<_> = prompts
            .iter()
            .map(|prompt| setup.start(prompt).sequence)
            .collect();
        let read = |setup: &mut Setup, from: usize, to: usize| {
            let sequences = &starts[from..to];
            let mut cache = setup.cache(sequences);
            let wanted = vec![Vec::new(); sequences.len()];
            let (blocks, _) = prefill(&mut setup.model, &mut cache, sequences, &wanted);
            let mut rows: Vec<Row> = sequences
                .iter()
                .zip(blocks)
                .map(|(sequence, blocks)| Row {
                    prompt_blocks: blocks,
                    prompt_tokens: sequence.ids.len(),
                    next_position: sequence.ids.len() as i64,
                    ..Row::default()
                })
                .collect();
            let tokens = vec![7; rows.len()];
            (0..40).for_each(|_| {
                step(&mut setup.model, &mut cache, &mut rows, &tokens);
            });
            step(&mut setup.model, &mut cache, &mut rows, &tokens)
        };
        let together = read(&mut setup, 0, starts.len());
        let alone: Vec<_> = (0..starts.len())
            .flat_map(|row| read(&mut setup, row, row + 1))
            .collect();
        assert_eq!(alone, together);
    });
}

#[test]
fn a_step_is_the_same_with_any_number_of_rows() {
    Setup::each(|mut setup| {
        let prompt = setup.prompts[0].clone();
        let start = setup.start(&prompt).sequence;
        let length = start.ids.len();
        let vocab_size = setup.config.text.vocab_size as u32;
        let tokens: Vec<u32> = (0..65).map(|row| (7 + 13 * row) % vocab_size).collect();
        let mut reference = Vec::new();
        for rows in [65, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 17, 32, 64] {
            let mut cache = setup.cache(&vec![start.clone(); rows]);
            let (blocks, _) = prefill(
                &mut setup.model,
                &mut cache,
                std::slice::from_ref(&start),
                &[vec![]],
            );
            let row = Row {
                prompt_blocks: blocks[0].clone(),
                prompt_tokens: length,
                next_position: length as i64,
                ..Row::default()
            };
            let logits = step(
                &mut setup.model,
                &mut cache,
                &mut vec![row; rows],
                &tokens[..rows],
            );
            if reference.is_empty() {
                reference = logits;
            } else {
                assert_eq!(logits, reference[..rows], "{rows} rows");
            }
        }
    });
}
