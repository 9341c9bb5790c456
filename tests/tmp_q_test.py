import pytest, json
from django.urls import reverse
@pytest.mark.django_db
def test_x(alice, bob, api_of):
    from django_chat_sessions.api.urls import urlpatterns
    for u in urlpatterns: print(u.pattern, u.pattern.regex.pattern)
    print(reverse("chat_sessions:message-detail", kwargs={"session":"x","sequence":3}), reverse("chat_sessions:session-list"))
    c=api_of(alice)
    def p(r): print(r.status_code, r.get("Content-Type"), r.content.decode()[:300]); return r
    p(c.get("/api/chat/sessions/x/y/z")); p(c.post("/api/chat/sessions/x/y/z/")); p(c.get("/api/chat/sessions/a%0Ab/messages"))
    p(c.get("/api/chat/sessions?format=xml")); p(c.get("/api/chat/sessions?"+"&".join(f"a{i}=1" for i in range(2000))))
    p(c.get("/api/chat/sessions", headers={"Accept":"application/problem+json"}))
    p(c.post("/api/chat/sessions", {"messages":[{"content":"a","external_id":"x"},{"content":"b","external_id":"x"}]}))
    r=p(c.post("/api/chat/sessions", {"agent":"silent"})).json()["id"]
    p(c.post(f"/api/chat/sessions/{r}/messages", {"x":1, "role":5}))
    p(c.post(f"/api/chat/sessions/{r}/messages", b"null", content_type="application/json"))
    p(c.post(f"/api/chat/sessions/{r}/messages", b"", content_type="application/json"))
    p(c.post(f"/api/chat/sessions/{r}/messages", {"content":"a", "delivery":"wait"}))
    p(c.post(f"/api/chat/sessions/{r}/messages", {"content":"a", "delivery":"stream"}))
    p(c.get("/api/chat/sessions?limit=1_0&wait=nan"))
