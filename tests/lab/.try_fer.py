import time, sys
b=time.time()
from farwrite import warm
warm.compile_all()
from farwrite.lab.lab import *
print("compiled", time.time()-b)
with open_lab(LabSpec(sys.argv[1],None,None,16<<20,16<<20,"cubic")) as lab:
    print("open", time.time()-b, lab.choice, lab.base.rtt_ns_p50, lab.base.rtt_ns_min, lab.transport)
    for d in (0, 1, 333_333, 1_000_000, 2_000_001):
        lab.set_delay(d)
        t=time.time(); s=lab.survey(40)
        print(d, s.rtt_ns_min, s.rtt_ns_p50, s.rtt_ns.max(), time.time()-t)
    for a in (500_000, 2_000_000):
        lab.set_rtt(a); s=lab.survey(40); print("asked", a, s.rtt_ns_p50, lab.delay_ns)
    print(lab.link.counters())
    t=time.time(); lab.link.cut(); print("cut", time.time()-t); lab.link.heal()
    lab.near.kill(); lab.revive(); print(lab.survey(10).rtt_ns)
print("closed", time.time()-b)
