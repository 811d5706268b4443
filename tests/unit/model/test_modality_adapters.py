import torch

from uni_moe.model.network import UniMoeForConditionalGeneration


def two_models(config):
    torch.manual_seed(0)
    plain = UniMoeForConditionalGeneration(config).eval()
    config.modality_adapters = True
    adapted = UniMoeForConditionalGeneration(config).eval()
    adapted.load_state_dict(plain.state_dict(), strict=False)
    return plain, adapted


def test_fresh_adapters_change_nothing(config, batch):
    plain, adapted = two_models(config)
    with torch.no_grad():
        assert torch.equal(plain(**batch).loss, adapted(**batch).loss)


def test_an_adapter_changes_the_routing_of_its_modality_alone(config, batch):
    plain, adapted = two_models(config)
    adapters = adapted.sparse_layers()[0].adapters
    with torch.no_grad():
        adapters.maps["video"].weight.normal_()
        one, two = (m(**batch, output_routing=True).routing[0] for m in (plain, adapted))
    ids = batch["input_ids"][batch["attention_mask"].bool()]
    video = ids == config.slot_id("video")
    assert video.any()
    assert torch.equal(one.logits_TE[~video], two.logits_TE[~video])
    assert not torch.isclose(one.logits_TE[video], two.logits_TE[video]).any()


def test_every_adapter_has_a_gradient_even_where_its_modality_is_absent(config):
    _, adapted = two_models(config)
    text = {
        "input_ids": torch.tensor([[1, 5, 6, 7]]),
        "labels": torch.tensor([[-100, 5, 6, 7]]),
    }
    adapted(**text).loss.backward()
    for one in adapted.sparse_layers()[0].adapters.maps.values():
        assert one.weight.grad is not None


def test_a_reloaded_model_keeps_its_adapters(config, batch, tmp_path):
    _, adapted = two_models(config)
    with torch.no_grad():
        for one in adapted.sparse_layers()[0].adapters.maps.values():
            one.weight.normal_()
    adapted.save_pretrained(tmp_path)
    again = UniMoeForConditionalGeneration.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(adapted(**batch).loss, again(**batch).loss)


def test_generation_goes_on_with_the_map_of_text(config, batch):
    _, adapted = two_models(config)
    with torch.no_grad():
        for one in adapted.sparse_layers()[0].adapters.maps.values():
            one.weight.normal_()
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    cached, plain = (
        adapted.generate(**inputs, max_new_tokens=4, do_sample=False, use_cache=use)
        for use in (True, False)
    )
    assert torch.equal(cached, plain)
