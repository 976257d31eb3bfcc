"""The report's curve tables as metrics along steps."""

from detoxlens.tracking import Curve, read_curves


def test_the_reports_curve_tables_become_metrics_along_steps(tmp_path):
    entropy, training = tmp_path / "entropy_curves.csv", tmp_path / "training_curves.csv"
    entropy.write_text(
        "model,variant,text,scope,measure,group,step,mean,lo,hi,band_lo,band_hi,n,unit\n"
        "tiny-neox,ft,ft,prompt,prompt_entropy_bits,all,1,2.5,2.4,2.6,2.3,2.7,40,bit\n"
        "tiny-neox,ft,ft,prompt,prompt_entropy_bits,all,2,0,0,0,0,0,39,bit\n"
        "tiny-neox,ft,it,prompt,prompt_entropy_bits,toxic_by_it,1,2.0,1.9,2.1,1.8,2.2,40,bit\n"
        "tiny-neox,ft,it,user,prompt_entropy_bits,model_effect,1,0.1,0,0.2,0,0.2,40,bit\n"
        "tiny-neox,it,it,prompt,prompt_entropy_bits,all,1,9,9,9,9,9,40,bit\n"
    )
    training.write_text("model,variant,metric,step,value\ntiny-neox,ft,sft/loss_nats,20,1.5\n")
    assert read_curves([entropy, training], model="tiny-neox", variant="ft") == [
        Curve(name="entropy/own/prompt_entropy_bits", points=((1, 2.5), (2, 0.0))),
        Curve(name="entropy/it/toxic_by_it/prompt_entropy_bits", points=((1, 2.0),)),
        Curve(name="entropy/it/user/model_effect/prompt_entropy_bits", points=((1, 0.1),)),
        Curve(name="sft/loss_nats", points=((20, 1.5),)),
    ]
