"""A Kubernetes API server as evertune uses it, as a test suite: the fake passes it, and so does a real one.

Subclass `ApiServerContract` as `Test…` and say with the fixture `api` how to reach the server, as a cluster's admin.
No controller and no node is asked for; what those do is in `contract_jobs`.
"""

from __future__ import annotations

import pytest

from evertune.testing.kubernetes.calling import (
    JOBS,
    MERGE,
    PODS,
    SETTINGS,
    Caller,
    WithNamespace,
    a_job,
    a_pod,
    a_setting,
    refused,
    until,
    watching,
)
from evertune.testing.kubernetes.objects import JsonDict


class ApiServerContract(WithNamespace):
    """Override the fixture `api`, and what depends on the server."""

    bookmark_s = 100.0  # a server sends one every minute

    def forget(self) -> None:
        """Make the server forget the history of its watches, or skip."""
        pytest.skip("this server cannot be made to forget")

    # ------------------------------------------------------------------------------------------ create

    async def test_what_is_created_gets_an_identity(self, api: Caller, namespace: str) -> None:
        path = JOBS.format(namespace)
        made = await api.call("POST", path, body=a_job("one", suspend=True), query={"fieldManager": "evertune"})
        meta = made["metadata"]
        assert (made["kind"], made["apiVersion"], meta["namespace"]) == ("Job", "batch/v1", namespace)
        assert meta["uid"]
        assert meta["creationTimestamp"].endswith("Z")
        assert int(meta["resourceVersion"]) > 0
        assert meta["generation"] == 1
        assert meta["managedFields"][0]["manager"] == "evertune"
        assert (await api.call("GET", f"{path}/one"))["metadata"]["uid"] == meta["uid"]

    async def test_a_job_gets_its_defaults_and_labels_for_its_pods(self, api: Caller, namespace: str) -> None:
        made = await api.call("POST", JOBS.format(namespace), body=a_job("one", suspend=True))
        spec, uid = made["spec"], made["metadata"]["uid"]
        assert (spec["backoffLimit"], spec["completions"], spec["parallelism"], spec["suspend"]) == (6, 1, 1, True)
        assert spec["completionMode"] == "NonIndexed"
        assert spec["selector"]["matchLabels"] == {"batch.kubernetes.io/controller-uid": uid}
        assert spec["template"]["metadata"]["labels"] == {
            "batch.kubernetes.io/controller-uid": uid, "batch.kubernetes.io/job-name": "one",
            "controller-uid": uid, "job-name": "one",
        }  # fmt: skip
        assert spec["template"]["spec"]["terminationGracePeriodSeconds"] == 30

    async def test_a_name_is_given_once(self, api: Caller, namespace: str) -> None:
        path = JOBS.format(namespace)
        await api.call("POST", path, body=a_job("one", suspend=True))
        error = await refused(
            api.call("POST", path, body=a_job("one", suspend=True)), 409, "AlreadyExists",
            'jobs.batch "one" already exists',
        )  # fmt: skip
        assert error.details == {"name": "one", "group": "batch", "kind": "jobs"}

    async def test_a_generated_name_begins_as_asked(self, api: Caller, namespace: str) -> None:
        body = {**a_setting(""), "metadata": {"generateName": "some-"}}
        made = [(await api.call("POST", SETTINGS.format(namespace), body=body))["metadata"]["name"] for _ in range(2)]
        assert all(name.startswith("some-") and len(name) == 10 for name in made)
        assert made[0] != made[1]

    async def test_an_unknown_field_is_refused_when_strict_and_dropped_otherwise(
        self, api: Caller, namespace: str
    ) -> None:
        path = JOBS.format(namespace)
        body = a_job("one", suspend=True, backofLimit=1)
        body["spec"]["template"]["spec"]["containers"][0]["comand"] = ["true"]
        error = await refused(
            api.call("POST", path, body=body, query={"fieldValidation": "Strict"}), 400, "BadRequest",
            'Job in version "v1" cannot be handled as a Job: strict decoding error: ',
            'unknown field "spec.backofLimit"', 'unknown field "spec.template.spec.containers[0].comand"',
        )  # fmt: skip
        assert error.status == 400
        await refused(api.call("GET", f"{path}/one"), 404, "NotFound")
        made = await api.call("POST", path, body=body)
        assert "backofLimit" not in made["spec"]
        assert "comand" not in made["spec"]["template"]["spec"]["containers"][0]

    @pytest.mark.parametrize(
        ("body", "where"),
        [
            (a_job("Upper"), 'Job.batch "Upper" is invalid: metadata.name: Invalid value: "Upper": a lowercase RFC'),
            ({**a_job("one"), "metadata": {"name": "one", "labels": {"a": "x" * 64}}}, "must be no more than 63 char"),
            (
                {**a_job("one"), "metadata": {"name": "one", "labels": {"a": "x/y"}}},
                "metadata.labels: Invalid value: \"x/y\": a valid label must be an empty string",
            ),
            (
                a_job("one", template={"spec": {"restartPolicy": "Never", "containers": []}}),
                'Job.batch "one" is invalid: spec.template.spec.containers: Required value',
            ),
            (
                a_job("one", template={"spec": {"restartPolicy": "Always", **a_pod("")["spec"]}}),
                'spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"',
            ),
            (
                a_job("one", template={"spec": {"restartPolicy": "Never", "containers": [{"name": "a"}]}}),
                "spec.template.spec.containers[0].image: Required value",
            ),
            (
                a_job("one", template={"spec": {
                    "restartPolicy": "Never", "containers": a_pod("")["spec"]["containers"] * 2,
                }}),
                'spec.template.spec.containers[1].name: Duplicate value: "main"',
            ),
        ],
        ids=["name", "long label", "label", "no container", "restart policy", "no image", "two of a name"],
    )  # fmt: skip
    async def test_an_invalid_object_is_refused_with_the_place(
        self, api: Caller, namespace: str, body: JsonDict, where: str
    ) -> None:
        error = await refused(api.call("POST", JOBS.format(namespace), body=body), 422, "Invalid", where)
        assert error.details["causes"][0]["field"]

    async def test_another_kind_than_the_paths_is_refused(self, api: Caller, namespace: str) -> None:
        await refused(api.call("POST", JOBS.format(namespace), body=a_pod("one")), 400, "BadRequest")

    async def test_a_dry_run_answers_and_stores_nothing(self, api: Caller, namespace: str) -> None:
        path = JOBS.format(namespace)
        made = await api.call("POST", path, body=a_job("one"), query={"dryRun": "All"})
        assert made["metadata"]["uid"]
        await refused(api.call("GET", f"{path}/one"), 404, "NotFound", 'jobs.batch "one" not found')

    # ------------------------------------------------------------------------------------------ read

    async def test_a_kind_that_is_not_served_is_not_found(self, api: Caller, namespace: str) -> None:
        path = f"/apis/batch/v1/namespaces/{namespace}/things"
        await refused(api.call("GET", path), 404, "NotFound", "could not find the requested resource")
        for path in (f"/apis/nobody.example/v1/namespaces/{namespace}/things", "/apis/nobody.example/v1"):
            await refused(api.call("GET", path), 404, "", "404 page not found")  # plain text, no Status

    async def test_a_list_comes_in_pages_of_one_version_and_items_have_no_kind(
        self, api: Caller, namespace: str
    ) -> None:
        path = SETTINGS.format(namespace)
        for number in range(5):
            await api.call("POST", path, body=a_setting(f"s{number}", side="left"))
        first = await api.call("GET", path, query={"limit": "3", "labelSelector": "side=left"})
        await api.call("POST", path, body=a_setting("s9", side="left"))
        more = {"limit": "3", "labelSelector": "side=left", "continue": first["metadata"]["continue"]}
        second = await api.call("GET", path, query=more)
        names = [[item["metadata"]["name"] for item in page["items"]] for page in (first, second)]
        assert names == [["s0", "s1", "s2"], ["s3", "s4"]]
        assert not second["metadata"].get("continue")
        assert first["kind"] == "ConfigMapList"
        assert "kind" not in first["items"][0]
        assert first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]

    async def test_a_forged_token_of_a_page_is_refused(self, api: Caller, namespace: str) -> None:
        query = {"limit": "1", "continue": "nonsense"}
        await refused(api.call("GET", SETTINGS.format(namespace), query=query), 400, "BadRequest")

    @pytest.mark.parametrize(
        ("selector", "expected"),
        [
            ("side=left", ["a"]), ("side==left,size=big", ["a"]), ("side!=left", ["b", "c"]),
            ("side in (left, right)", ["a", "b"]), ("side notin (left)", ["b", "c"]), ("side", ["a", "b"]),
            ("!side", ["c"]), ("size in (big),side notin (right)", ["a", "c"]),
        ],
    )  # fmt: skip
    async def test_labels_select(self, api: Caller, namespace: str, selector: str, expected: list[str]) -> None:
        path = SETTINGS.format(namespace)
        for body in (
            a_setting("a", side="left", size="big"),
            a_setting("b", side="right", size="big"),
            a_setting("c", size="big"),
        ):  # fmt: skip
            await api.call("POST", path, body=body)
        # A ConfigMap that every namespace gets has no such label, and may come later.
        found = await api.call("GET", path, query={"labelSelector": f"{selector},size"})
        assert [item["metadata"]["name"] for item in found["items"]] == expected

    async def test_fields_select_a_few_that_are_offered(self, api: Caller, namespace: str) -> None:
        path = PODS.format(namespace)
        for name in ("one", "two"):
            await api.call("POST", path, body=a_pod(name, schedulerName="nobody"))
        query = {"fieldSelector": "metadata.name=two,status.phase!=Running"}
        assert [pod["metadata"]["name"] for pod in (await api.call("GET", path, query=query))["items"]] == ["two"]
        await refused(
            api.call("GET", path, query={"fieldSelector": "spec.image=x"}), 400, "BadRequest",
            "field label not supported: spec.image",
        )  # fmt: skip

    # ------------------------------------------------------------------------------------------ write

    async def test_a_write_on_an_old_version_conflicts(self, api: Caller, namespace: str) -> None:
        path = f"{SETTINGS.format(namespace)}/one"
        old = await api.call("POST", SETTINGS.format(namespace), body=a_setting("one"))
        await api.call("PUT", path, body={**old, "data": {"a": "2"}})
        sentence = "the object has been modified; please apply your changes to the latest version and try again"
        await refused(api.call("PUT", path, body={**old, "data": {"a": "3"}}), 409, "Conflict", sentence)
        patch = {"metadata": {"resourceVersion": old["metadata"]["resourceVersion"]}, "data": {"a": "4"}}
        await refused(api.call("PATCH", path, body=patch, content_type=MERGE), 409, "Conflict", sentence)
        assert (await api.call("GET", path))["data"] == {"a": "2"}

    async def test_a_merge_patch_merges_and_removes(self, api: Caller, namespace: str) -> None:
        path = f"{SETTINGS.format(namespace)}/one"
        await api.call("POST", SETTINGS.format(namespace), body=a_setting("one", side="left"))
        patch = {"metadata": {"labels": {"side": None, "size": "big"}}, "data": {"b": "2"}}
        after = await api.call("PATCH", path, body=patch, content_type=MERGE)
        assert (after["metadata"]["labels"], after["data"]) == ({"size": "big"}, {"a": "1", "b": "2"})
        again = await api.call("PATCH", path, body=patch, content_type=MERGE)
        assert again["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"]

    async def test_the_status_is_written_by_its_own_path_only(self, api: Caller, namespace: str) -> None:
        path = f"{PODS.format(namespace)}/one"
        await api.call("POST", PODS.format(namespace), body=a_pod("one", schedulerName="nobody"))
        patch = {"metadata": {"labels": {"a": "b"}}, "status": {"phase": "Running"}}
        assert (await api.call("PATCH", path, body=patch, content_type=MERGE))["status"]["phase"] == "Pending"
        after = await api.call("PATCH", f"{path}/status", body={"status": {"phase": "Running"}}, content_type=MERGE)
        assert (after["status"]["phase"], after["metadata"]["labels"]) == ("Running", {"a": "b"})

    async def test_a_jobs_template_is_fixed(self, api: Caller, namespace: str) -> None:
        await api.call("POST", JOBS.format(namespace), body=a_job("one"))
        patch = {"spec": {"template": {"spec": {"activeDeadlineSeconds": 7}}}}
        path = f"{JOBS.format(namespace)}/one"
        await refused(api.call("PATCH", path, body=patch, content_type=MERGE), 422, "Invalid", "field is immutable")

    # ------------------------------------------------------------------------------------------ delete

    async def test_a_delete_may_insist_on_an_identity(self, api: Caller, namespace: str) -> None:
        path = f"{JOBS.format(namespace)}/one"
        made = await api.call("POST", JOBS.format(namespace), body=a_job("one", suspend=True))
        other = {"preconditions": {"uid": "00000000-0000-0000-0000-000000000000"}}
        await refused(api.call("DELETE", path, body=other), 409, "Conflict", "the UID in the precondition")
        body = {"preconditions": {"uid": made["metadata"]["uid"]}, "propagationPolicy": "Background"}
        gone = await api.call("DELETE", path, body=body)
        assert (gone["kind"], gone["status"], gone["details"]["uid"]) == ("Status", "Success", made["metadata"]["uid"])
        await refused(api.call("DELETE", path, body=body), 404, "NotFound", 'jobs.batch "one" not found')

    async def test_a_finalizer_keeps_what_is_deleted(self, api: Caller, namespace: str) -> None:
        path = f"{SETTINGS.format(namespace)}/one"
        body = a_setting("one")
        body["metadata"]["finalizers"] = ["evertune.io/test"]
        await api.call("POST", SETTINGS.format(namespace), body=body)
        assert (await api.call("DELETE", path))["metadata"]["deletionTimestamp"]
        assert (await api.call("GET", path))["metadata"]["deletionTimestamp"]
        await api.call("PATCH", path, body={"metadata": {"finalizers": None}}, content_type=MERGE)
        await refused(api.call("GET", path), 404, "NotFound")

    async def test_a_pod_without_a_node_goes_at_once_and_one_with_a_node_after_its_grace(
        self, api: Caller, namespace: str
    ) -> None:
        path = PODS.format(namespace)
        await api.call("POST", path, body=a_pod("loose", schedulerName="nobody"))
        assert (await api.call("DELETE", f"{path}/loose"))["kind"] == "Pod"
        await refused(api.call("GET", f"{path}/loose"), 404, "NotFound")
        await api.call("POST", path, body=a_pod("bound", nodeName="nowhere", terminationGracePeriodSeconds=7))
        assert (await api.call("DELETE", f"{path}/bound"))["metadata"]["deletionGracePeriodSeconds"] == 7
        assert (await api.call("GET", f"{path}/bound"))["metadata"]["deletionTimestamp"]
        await api.call("DELETE", f"{path}/bound", body={"gracePeriodSeconds": 0})
        await refused(api.call("GET", f"{path}/bound"), 404, "NotFound")

    # ------------------------------------------------------------------------------------------ watch

    async def test_a_watch_tells_what_happened_since(self, api: Caller, namespace: str) -> None:
        path = SETTINGS.format(namespace)
        begin = (await api.call("GET", path))["metadata"]["resourceVersion"]
        await api.call("POST", path, body=a_setting("one", side="left"))
        async with watching(api, path, resourceVersion=begin, labelSelector="side=left") as watch:
            told = [await watch.next()]
            await api.call("POST", path, body=a_setting("other", side="right"))
            for patch in ({"data": {"a": "2"}}, {"metadata": {"labels": {"side": "right"}}},
                          {"metadata": {"labels": {"side": "left"}}}):  # fmt: skip
                changed = await api.call("PATCH", f"{path}/one", body=patch, content_type=MERGE)
                told.append(await watch.next())
                assert told[-1] is not None
                assert told[-1][1]["metadata"]["resourceVersion"] == changed["metadata"]["resourceVersion"]
            await api.call("DELETE", f"{path}/one")
            told.append(await watch.next())
        types = [event[0] for event in told if event is not None]
        assert types == ["ADDED", "MODIFIED", "DELETED", "ADDED", "DELETED"]
        assert told[0] is not None
        assert (told[0][1]["kind"], told[0][1]["apiVersion"]) == ("ConfigMap", "v1")

    async def test_a_watch_ends_when_its_time_is_over(self, api: Caller, namespace: str) -> None:
        path = SETTINGS.format(namespace)
        begin = (await api.call("GET", path))["metadata"]["resourceVersion"]
        await api.call("POST", path, body=a_setting("one", side="right"))
        query = {"resourceVersion": begin, "allowWatchBookmarks": "true", "labelSelector": "side=left"}
        async with watching(api, path, **query, timeoutSeconds="1") as watch:
            while (event := await watch.next()) is not None:
                assert event[0] == "BOOKMARK"

    async def test_a_silent_watch_is_told_the_version_by_bookmarks(self, api: Caller, namespace: str) -> None:
        path = SETTINGS.format(namespace)
        begin = (await api.call("GET", path))["metadata"]["resourceVersion"]
        made = await api.call("POST", path, body=a_setting("one", side="right"))
        query = {"resourceVersion": begin, "allowWatchBookmarks": "true", "labelSelector": "side=left"}
        async with watching(api, path, patience_s=self.bookmark_s, **query) as watch:
            told = await watch.next()
        assert told is not None
        assert told[0] == "BOOKMARK"
        assert int(told[1]["metadata"]["resourceVersion"]) >= int(made["metadata"]["resourceVersion"])

    async def test_a_watch_from_a_forgotten_version_is_told_so(self, api: Caller, namespace: str) -> None:
        path = SETTINGS.format(namespace)
        begin = (await api.call("GET", path))["metadata"]["resourceVersion"]
        await api.call("POST", path, body=a_setting("one"))
        self.forget()
        async with watching(api, path, resourceVersion=begin) as watch:
            told = await watch.next()
        assert told is not None
        assert (told[0], told[1]["code"], told[1]["reason"]) == ("ERROR", 410, "Expired")
        assert "too old resource version" in told[1]["message"]

    # ------------------------------------------------------------------------------------------ logs

    async def test_a_log_names_its_container(self, api: Caller, namespace: str) -> None:
        body = a_pod("one", schedulerName="nobody")
        body["spec"]["containers"].append({"name": "beside", "image": "localhost/none:1"})
        await api.call("POST", PODS.format(namespace), body=body)
        path = f"{PODS.format(namespace)}/one/log"
        await refused(
            api.text(path, limit_bytes=1000), 400, "BadRequest",
            "a container name must be specified for pod one, choose one of: [main beside]",
        )  # fmt: skip
        await refused(
            api.text(path, query={"container": "none"}, limit_bytes=1000), 400, "BadRequest",
            "container none is not valid for pod one",
        )  # fmt: skip
        assert await api.text(path, query={"container": "main"}, limit_bytes=1000) == b""  # it has no node
        with pytest.raises(Exception, match='pods "none" not found'):
            await api.text(f"{PODS.format(namespace)}/none/log", limit_bytes=1000)

    # ------------------------------------------------------------------------------------------ the cluster

    async def test_it_says_what_it_serves_and_which_version_it_is(self, api: Caller) -> None:
        version = await api.call("GET", "/version")
        assert int(version["major"]) == 1
        assert int(version["minor"].rstrip("+")) >= 20
        core, batch = await api.call("GET", "/api/v1"), await api.call("GET", "/apis/batch/v1")
        assert ("pods", "Pod", True) in {(one["name"], one["kind"], one["namespaced"]) for one in core["resources"]}
        assert {"jobs", "jobs/status"} <= {one["name"] for one in batch["resources"]}
        assert batch["groupVersion"] == "batch/v1"
        assert "batch" in {group["name"] for group in (await api.call("GET", "/apis"))["groups"]}

    async def test_it_reviews_the_callers_rights(self, api: Caller, namespace: str) -> None:
        asked = {"namespace": namespace, "verb": "create", "group": "batch", "resource": "jobs"}
        body = {
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": asked},
        }  # fmt: skip
        told = await api.call("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body=body)
        assert told["status"]["allowed"] is True

    async def test_a_namespace_that_is_not_there_holds_nothing(self, api: Caller) -> None:
        path = JOBS.format("no-such-namespace")
        await refused(
            api.call("POST", path, body=a_job("one")), 404, "NotFound", 'namespaces "no-such-namespace" not found'
        )
        assert (await api.call("GET", path))["items"] == []

    async def test_a_namespace_that_goes_takes_nothing_new(self, api: Caller, namespace: str) -> None:
        path = SETTINGS.format(namespace)
        body = a_setting("kept")
        body["metadata"]["finalizers"] = ["evertune.io/test"]
        await api.call("POST", path, body=body)
        await api.call("DELETE", f"/api/v1/namespaces/{namespace}")

        async def terminating() -> bool:
            found = await api.call("GET", f"/api/v1/namespaces/{namespace}")
            return bool(found["status"]["phase"] == "Terminating")

        await until(terminating)
        error = await refused(
            api.call("POST", path, body=a_setting("new")), 403, "Forbidden",
            f"unable to create new content in namespace {namespace} because it is being terminated",
        )  # fmt: skip
        assert error.details["causes"][0]["reason"] == "NamespaceTerminating"
        await api.call("PATCH", f"{path}/kept", body={"metadata": {"finalizers": None}}, content_type=MERGE)
